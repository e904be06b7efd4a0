"""`xtuner-core runs compare`: in what runs differ, where that led them, and a plot of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xtuner_core.cli.config_show import shown as written
from xtuner_core.cli.options import json_option
from xtuner_core.cli.output import write_json, write_table
from xtuner_core.cli.runs_list import held_out, shown
from xtuner_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xtuner_core.runs import RunFolder

METRICS = ("loss", "grad_norm", "tokens_per_second", "mfu", "memory_peak_bytes")


@click.command("compare")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN...")
@click.option("--metric", "-m", "metrics", multiple=True, metavar="NAME", help="A metric to compare; may be repeated.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Plot over steps (.png, .svg or .pdf).")
@json_option
def compare(folders: tuple[Path, ...], metrics: tuple[str, ...], plot: Path | None, as_json: bool) -> None:
    """Compare runs: values of their plans that differ, and the last value of each metric.

    Metrics are those of metrics.jsonl: loss, grad_norm, held_out.loss, seconds.forward and so on.
    """
    from xtuner_core.runs import differing, read_run

    if len(folders) < 2:
        raise UsageError("one run is compared with nothing", fix="name two or more")
    runs = [read_run(folder) for folder in folders]
    _refuse_unknown(runs, metrics)
    rows = differing(runs)
    figures: dict[str, list[Any]] = {
        "status": [run.status for run in runs],
        "steps": [run.summary.get("steps", len(run.metrics)) for run in runs],
        "held out": [held_out(run) for run in runs],
        **{metric: [run.last(metric) for run in runs] for metric in metrics or METRICS},
    }
    if plot is not None:
        from xtuner_core.cli.plots import plot_runs

        plot_runs(runs, metrics or METRICS[:1], plot)
    if as_json:
        write_json({"runs": [str(run.folder) for run in runs], "differences": rows, "figures": figures})
        return
    names = [run.name for run in runs]
    table = [[key, *map(written, values)] for key, values in rows.items()]
    write_table(["PLAN", *names], table or [["the same", *[""] * len(runs)]])
    click.echo()
    write_table(["FIGURE", *names], [[key, *map(shown, values)] for key, values in figures.items()])


def _refuse_unknown(runs: Sequence[RunFolder], metrics: Sequence[str]) -> None:
    known = dict.fromkeys(name for run in runs for line in run.metrics for name in line)
    for metric in metrics:
        if metric not in known:
            fix = f"choose among {', '.join(sorted(known)) or 'none: they have written no metrics'}"
            raise UsageError(f"none of these runs has the metric {metric!r}", fix=fix)
