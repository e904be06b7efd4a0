"""`xtuner-core data check`: what a dataset holds, what of it is broken, and how one record is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from xtuner_core.cli.data_counts import Counts
from xtuner_core.cli.data_render import legend, render
from xtuner_core.cli.data_source import SPLITS, data_arguments, open_source
from xtuner_core.cli.options import json_option
from xtuner_core.cli.output import write_json, write_table
from xtuner_core.cli.session import Session
from xtuner_core.errors import DataError

if TYPE_CHECKING:
    from xtuner_core.cli.data_source import DataSource

WIDTH = 40
"""Characters of the longest bar."""


@click.command("check")
@data_arguments
@json_option
@click.pass_obj
def check(session: Session, dataset: str, values: tuple[str, ...], plugins: tuple[str, ...], as_json: bool) -> int:
    """Read all of FILE (or of the dataset NAME): counts, lengths, broken records, a sample with what is trained on.

    Values are those of a run: tokenizer=DIR (a model's folder will do), dataset.KEY=… of the dataset's own
    configuration, chat.KEY=… of the chat template and its mask. The exit code is 4 where a record is broken, unless
    data.broken=skip says that a run would go on.
    """
    source = open_source(session, dataset, values, plugins)
    parts: dict[str, Counts] = {split: Counts() for split in SPLITS}
    for split in SPLITS:
        parts[split].add(source.records(split), source.encoder)
    parts = {split: counts for split, counts in parts.items() if counts.kinds}
    if as_json:
        write_json({split: _data(counts, source) for split, counts in parts.items()})
    else:
        _write(parts, source)
    broken = any(counts.broken for counts in parts.values())
    return DataError.exit_code if broken and not source.skip_broken else 0


def _unit(source: DataSource) -> str:
    return "characters" if source.encoder is None else "tokens"


def _data(counts: Counts, source: DataSource) -> dict[str, Any]:
    return {
        "records": dict(counts.kinds),
        "messages": dict(counts.roles),
        "documents": len(counts.lengths),
        _unit(source): counts.figures(),
        "histogram": [{"from": low, "below": high, "documents": n} for low, high, n in counts.histogram()],
        "trained": None if source.encoder is None else counts.trained,
        "broken": {"reasons": dict(counts.broken), "first": counts.first},
    }


def _write(parts: dict[str, Counts], source: DataSource) -> None:
    for split, counts in parts.items():
        click.secho(split.replace("_", " "), bold=True)
        write_table(["", ""], [[name, text] for name, text in _rows(counts, source)], indent=2, header=False)
        _write_histogram(counts, source)
        for line in counts.first:
            click.secho(f"  broken: {line}", fg="red")
        if (more := counts.kinds["broken"] - len(counts.first)) > 0:
            click.secho(f"  … and {more} more", fg="red")
        click.echo()
    sample = next((counts.sample for counts in parts.values() if counts.sample is not None), None)
    if sample is not None:
        click.echo(f"{legend(source)}\n\n{render(sample, source)}")


def _rows(counts: Counts, source: DataSource) -> Iterator[tuple[str, str]]:
    for kind, number in counts.kinds.items():
        yield kind, f"{number:,}"
    if counts.roles:
        yield "messages", ", ".join(f"{number:,} {role}" for role, number in counts.roles.items())
    figures = counts.figures()
    if figures:
        yield _unit(source), f"{figures.pop('sum'):,.0f} in {len(counts.lengths):,} documents"
        yield "a document", ", ".join(f"{name} {value:,.0f}" for name, value in figures.items())
    if source.encoder is not None and counts.lengths:
        total = sum(counts.lengths)
        yield "trained on", f"{counts.trained:,} tokens ({100 * counts.trained / max(1, total):.1f} %)"
    for reason, number in counts.broken.most_common():
        yield "broken", f"{number:,} times: {reason}"


def _write_histogram(counts: Counts, source: DataSource) -> None:
    rows = counts.histogram()
    longest = max((number for *_, number in rows), default=1)
    for low, high, number in rows:
        bar = "█" * max(1 if number else 0, round(WIDTH * number / longest))
        click.echo(f"  {low:>9,} to {high - 1:>9,} {_unit(source)}  {number:>9,}  {bar}")
