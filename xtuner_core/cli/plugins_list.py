"""`xtuner-core plugins list`: what is installed, from metadata alone, so that broken plugins do not disturb it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from xtuner_core.cli.options import json_option
from xtuner_core.cli.output import write_json, write_table
from xtuner_core.discovery import CORE, Candidate, Discovery, discover


@click.command("list")
@json_option
def list_plugins(as_json: bool) -> None:
    """List installed plugins without importing any.

    OFFERS is what the distribution's metadata lists. STATE says whether a plugin is active in every run, installed,
    or broken and why.
    """
    rows = list(_rows(discover()))
    if as_json:
        write_json(rows)
        return
    columns = ("name", "distribution", "version", "offers", "state")
    table = [[_cell(row, column) for column in columns] for row in rows]
    write_table([column.upper() for column in columns], table)


def _rows(found: Discovery) -> Iterator[dict[str, Any]]:
    claims = {name: (candidate,) for name, candidate in found.candidates.items()} | dict(found.clashes)
    for name in sorted(claims):
        for candidate in claims[name]:
            others = [other.distribution for other in claims[name] if other is not candidate]
            fault = f"its name is also claimed by {' and '.join(others)}" if others else candidate.fault
            yield _row(candidate, fault, found)


def _row(candidate: Candidate, fault: str, found: Discovery) -> dict[str, Any]:
    ready = "active" if candidate.distribution == CORE else "installed"
    return {
        "name": candidate.name,
        "distribution": candidate.distribution,
        "version": candidate.version,
        "editable": candidate.editable,
        "module": candidate.module,
        "offers": [key for key, owners in found.index.items() if candidate.name in owners],
        "state": "broken" if fault else ready,
        "fault": fault,
    }


def _cell(row: dict[str, Any], column: str) -> str:
    if column == "state" and row["fault"]:
        return f"broken: {row['fault']}"
    return ", ".join(row[column]) if isinstance(row[column], list) else str(row[column])
