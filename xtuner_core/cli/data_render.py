"""Records for a person's eyes: what is trained on in colour, or between ⟦ and ⟧ where there is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from xtuner_core.cli.data_source import DataSource
    from xtuner_core.contracts.dataset import BrokenRecord, Record
    from xtuner_core.data.chat.show import Piece

CHARACTERS = 4000
"""A document's end is left out beyond these."""


def legend(source: DataSource) -> str:
    """What colours or marks mean."""
    if source.encoder is None:
        return "no tokenizer: records as they are; write tokenizer=DIR for tokens and what is trained on"
    trained, context = _styled("trained on", 1.0), _styled("context", 0.0)
    return f"{trained}, {context}; half weights are yellow" if _coloured() else f"{trained}, {context}"


def render(record: Record | BrokenRecord, source: DataSource) -> str:
    """One record: where it stands, then its documents."""
    from xtuner_core.contracts.dataset import BrokenRecord

    head = click.style(str(record.origin), bold=True) if _coloured() else str(record.origin)
    if isinstance(record, BrokenRecord):
        return f"{head}: broken: {record.reason}"
    if source.encoder is None:
        return f"{head}\n{_plain(record)}"
    from xtuner_core.data.chat.show import show

    assert source.tokenizer is not None
    documents = show(record, source.encoder, source.tokenizer)
    if isinstance(documents, BrokenRecord):
        return f"{head}: broken: {documents.reason}"
    return "\n".join(f"{head} {_counts(pieces)}\n{_pieces(pieces)}" for pieces in documents)


def _counts(pieces: Sequence[Piece]) -> str:
    tokens, trained = sum(p.tokens for p in pieces), sum(p.tokens for p in pieces if p.weight)
    return f"({tokens} tokens, {trained} trained on)"


def _pieces(pieces: Sequence[Piece]) -> str:
    left, shown = CHARACTERS, []
    for piece in pieces:
        shown.append(_styled(piece.text[:left], piece.weight))
        left -= len(piece.text)
        if left <= 0:
            return "".join(shown) + " …"
    return "".join(shown)


def _styled(text: str, weight: float) -> str:
    if not _coloured():
        return f"⟦{text}⟧" if weight else text
    if not weight:
        return click.style(text, dim=True)
    return click.style(text, fg="green" if weight == 1 else "yellow")


def _plain(record: Record) -> str:
    from xtuner_core.contracts.dataset import ChatRecord, TextRecord

    if isinstance(record, TextRecord):
        return record.text[:CHARACTERS] + (" …" if len(record.text) > CHARACTERS else "")
    if isinstance(record, ChatRecord):
        return json.dumps(list(record.messages), ensure_ascii=False, indent=2, default=str)[:CHARACTERS]
    return f"{len(record.token_ids)} token ids"


def _coloured() -> bool:
    return sys.stdout.isatty()
