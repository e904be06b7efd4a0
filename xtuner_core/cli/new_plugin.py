"""`xtuner-core new-plugin`: a distribution of one's own to start from."""

from __future__ import annotations

from pathlib import Path

import click

from xtuner_core.scaffold.kinds import KINDS


@click.command("new-plugin")
@click.argument("name")
@click.option("--slot", required=True, type=click.Choice(list(KINDS)), help="What the plugin offers.")
@click.option("--package", metavar="NAME", help="Its Python package; xtuner_NAME where none is given.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where it is written; ./DISTRIBUTION otherwise.")
def new_plugin(name: str, slot: str, package: str | None, folder: Path | None) -> None:
    """Write a plugin NAME that works as it stands and passes the contract suites of its slot."""
    from xtuner_core.scaffold.write import NewPlugin, write_plugin

    new = NewPlugin(name, slot, package or f"xtuner_{name}")
    folder = folder or Path(new.package.replace("_", "-"))
    for file in write_plugin(new, folder):
        click.echo(file)
    click.echo(f"\ncd {folder}\npip install -e '.[testing]'\npython -m pytest", err=True)
