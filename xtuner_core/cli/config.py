"""`xtuner-core config`: the configuration of a run."""

from __future__ import annotations

import click

from xtuner_core.cli.group import LazyGroup


@click.group(cls=LazyGroup, lazy={"show": "xtuner_core.cli.config_show:show"})
def config() -> None:
    """Show the configuration of a run."""
