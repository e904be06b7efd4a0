"""`xtuner-core plugins`: what is installed, what it offers, whether it works."""

from __future__ import annotations

import click

from xtuner_core.cli.group import LazyGroup

COMMANDS = {
    "list": "xtuner_core.cli.plugins_list:list_plugins",
    "show": "xtuner_core.cli.plugins_show:show",
    "check": "xtuner_core.cli.plugins_check:check",
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def plugins() -> None:
    """List, show and check installed plugins."""
