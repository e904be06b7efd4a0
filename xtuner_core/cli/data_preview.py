"""`xtuner-core data preview`: some records as the model will see them."""

from __future__ import annotations

from itertools import islice

import click

from xtuner_core.cli.data_render import legend, render
from xtuner_core.cli.data_source import data_arguments, open_source
from xtuner_core.cli.session import Session


@click.command("preview")
@data_arguments
@click.option("--records", "-n", default=3, type=click.IntRange(min=1), help="How many are shown; 3 by default.")
@click.option("--skip", default=0, type=click.IntRange(min=0), help="How many are passed over first.")
@click.option("--held-out", is_flag=True, help="Of the held-out part instead of the training part.")
@click.pass_obj
def preview(
    session: Session,
    dataset: str,
    values: tuple[str, ...],
    plugins: tuple[str, ...],
    records: int,
    skip: int,
    held_out: bool,
) -> None:
    """Show records of FILE (or of the dataset NAME), each with what of it is trained on.

    Values are those of a run: tokenizer=DIR (a model's folder will do), dataset.KEY=… of the dataset's own
    configuration, chat.KEY=… of the chat template and its mask.
    """
    source = open_source(session, dataset, values, plugins)
    click.echo(legend(source))
    for record in islice(source.records("held_out" if held_out else "train"), skip, skip + records):
        click.echo(f"\n{render(record, source)}")
