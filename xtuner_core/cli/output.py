"""Writing data: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click


def write_json(data: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def write_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, indent: int = 0, header: bool = True) -> None:
    """A table that rich lays out on a terminal; aligned text, one line a row, elsewhere."""
    if sys.stdout.isatty():
        _write_rich(columns, rows, indent, header)
        return
    lines = [*([columns] if header else ()), *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo(" " * indent + "  ".join(cells).rstrip())


def one_line(text: str) -> str:
    """The text with every run of white space as one blank."""
    return " ".join(text.split())


def _write_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], indent: int, header: bool) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=header)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(Padding(table, (0, 0, 0, indent)))
