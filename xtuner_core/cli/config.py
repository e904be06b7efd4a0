"""`xtuner-core config`: the configuration of a run."""

from __future__ import annotations

import click

from xtuner_core.cli.group import LazyGroup

COMMANDS = {
    "show": "xtuner_core.cli.config_show:show",
    "schema": "xtuner_core.cli.config_schema:schema",
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def config() -> None:
    """Show the configuration of a run, or the schema of a recipe."""
