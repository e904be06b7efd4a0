"""The operator table of a run: what serves each use, and why nothing else does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from xtuner_core.cli.output import write_table

if TYPE_CHECKING:
    from xtuner_core.engine.operators import OperatorRow


def write_operators(rows: Sequence[OperatorRow]) -> None:
    """A table with a row for each use."""
    columns = ["OPERATOR", "SERVED BY", "PLUGIN", "USERS", "DTYPE", "SIZES AND OPTIONS", "OTHERS"]
    write_table(columns, [list(_row(row)) for row in rows], indent=2)


def _row(row: OperatorRow) -> Iterator[str]:
    yield from (row.operator, row.implementation, row.plugin, str(row.users), row.dtype)
    yield ", ".join(f"{name}={value}" for name, value in {**row.sizes, **row.options}.items())
    yield "; ".join(f"{name}: {reason}" for name, reason in row.others.items()) or "none"
