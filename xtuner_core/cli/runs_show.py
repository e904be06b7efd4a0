"""`xtuner-core runs show`: what one run was asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xtuner_core.cli.config_show import shown as written
from xtuner_core.cli.options import json_option
from xtuner_core.cli.output import write_json, write_table
from xtuner_core.cli.runs_list import shown

if TYPE_CHECKING:
    from xtuner_core.runs import RunFolder


@click.command("show")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@json_option
def show(run: Path, as_json: bool) -> None:
    """Show the folder RUN: picks, values that are not defaults, plugins, the last step, the outcome."""
    from xtuner_core.runs import read_run

    found = read_run(run)
    if as_json:
        write_json(_data(found))
        return
    click.echo(f"{found.folder}: {found.status}, plan {found.plan.digest[:16]}")
    if "error" in found.summary:
        click.secho(f"  {found.summary['error']}", fg="red")
    sections = {
        "picks": [[pick.key, found.pick(pick.key), pick.plugin] for pick in found.plan.picks],
        "values that are not defaults": [list(row) for row in _chosen(found)],
        "last step": [[name, shown(value)] for name, value in _last(found).items()],
        "outcome": [[name, shown(value)] for name, value in _flat(found.summary) if name not in ("error", "traceback")],
    }
    for title, rows in sections.items():
        if rows:
            click.secho(f"\n{title}", bold=True)
            write_table([""] * len(rows[0]), rows, indent=2, header=False)


def _data(run: RunFolder) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "status": run.status,
        "digest": run.plan.digest,
        "picks": {pick.key: run.pick(pick.key) for pick in run.plan.picks},
        "plugins": {plugin.name: f"{plugin.distribution} {plugin.version}" for plugin in run.plan.plugins},
        "chosen": [{"key": key, "value": value, "origin": origin} for key, value, origin in _chosen(run, raw=True)],
        "last_step": _last(run),
        "summary": run.summary,
    }


def _chosen(run: RunFolder, *, raw: bool = False) -> Iterator[tuple[str, Any, str]]:
    """Values that somebody gave, with who did; picks stand elsewhere."""
    leaves = {key.removeprefix("config."): value for key, value in run.plan.leaves().items()}
    for key, origin in run.plan.origins.items():
        if origin != "default" and key in leaves:
            yield key, leaves[key] if raw else written(leaves[key]), origin


def _last(run: RunFolder) -> dict[str, Any]:
    """Figures of the last step that are no tables of layers."""
    line = run.metrics[-1] if run.metrics else {}
    return {name: value for name, value in line.items() if not isinstance(value, list) and not name[-1].isdecimal()}


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        elif not isinstance(value, list):
            yield f"{path}{name}", value
