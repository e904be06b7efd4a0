"""`xtuner-core runs`: what runs have come to, from their folders."""

from __future__ import annotations

import click

from xtuner_core.cli.group import LazyGroup

COMMANDS = {
    "list": "xtuner_core.cli.runs_list:list_runs",
    "show": "xtuner_core.cli.runs_show:show",
    "compare": "xtuner_core.cli.runs_compare:compare",
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def runs() -> None:
    """List, show and compare runs."""
