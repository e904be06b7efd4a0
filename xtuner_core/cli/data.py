"""`xtuner-core data`: a look at data before anything is trained on it."""

from __future__ import annotations

import click

from xtuner_core.cli.group import LazyGroup

COMMANDS = {
    "check": "xtuner_core.cli.data_check:check",
    "preview": "xtuner_core.cli.data_preview:preview",
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def data() -> None:
    """Check and preview datasets."""
