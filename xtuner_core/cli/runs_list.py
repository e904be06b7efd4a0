"""`xtuner-core runs list`: every run below a folder, a line each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xtuner_core.cli.options import json_option
from xtuner_core.cli.output import write_json, write_table

if TYPE_CHECKING:
    from xtuner_core.runs import RunFolder

HELD_OUT = ("held_out.bits_per_byte", "held_out.loss")
"""The first of these that a run has is shown."""


@click.command("list")
@click.argument("output", default="runs", type=click.Path(path_type=Path), metavar="[FOLDER]")
@json_option
def list_runs(output: Path, as_json: bool) -> None:
    """List the runs in FOLDER (`runs` where none is given).

    STATUS is finished, stopped, failed, or unfinished while the run goes on or was killed.
    """
    from xtuner_core.runs import find_runs

    runs, faults = find_runs(output)
    rows = [_row(run) for run in runs]
    for fault in faults:
        click.secho(f"passed over: {fault}", fg="yellow", err=True)
    if as_json:
        write_json(rows)
    else:
        columns = ("name", "status", "algorithm", "model", "steps", "loss", "held_out", "tokens_per_second")
        heads = [column.upper().replace("_PER_", "/") for column in columns]
        write_table(heads, [[shown(row[column]) for column in columns] for row in rows])


def _row(run: RunFolder) -> dict[str, Any]:
    last = run.metrics[-1] if run.metrics else {}
    return {
        "name": run.name,
        "folder": str(run.folder),
        "status": run.status,
        "algorithm": run.pick("algorithm"),
        "model": run.pick("model"),
        "steps": run.summary.get("steps", last.get("step", 0)),
        "loss": run.summary.get("loss", last.get("loss")),
        "held_out": held_out(run),
        "tokens_per_second": run.summary.get("tokens_per_second", last.get("tokens_per_second")),
        "digest": run.plan.digest,
    }


def held_out(run: RunFolder) -> float | None:
    """The run's newest held-out figure, of its summary or its metrics."""
    final = run.summary.get("held_out") or {}
    for metric in HELD_OUT:
        value = final.get(metric.partition(".")[2], run.last(metric))
        if value is not None:
            return float(value)
    return None


def shown(value: Any) -> str:
    """A figure as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return str(value)
