"""What records are well formed, and what two records have in common. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping

from xtuner_core.contracts.dataset import (
    BrokenRecord,
    ChatRecord,
    Corpus,
    Origin,
    Record,
    Shard,
    Split,
    TextRecord,
    TokenRecord,
)

SPLITS: tuple[Split, ...] = ("train", "held_out")


def read_part(corpus: Corpus, split: Split, shards: Iterable[Shard] | None = None) -> list[Record | BrokenRecord]:
    """All records of a part in order, or those of some of its shards."""
    return [record for shard in shards or corpus.shards(split) for record in corpus.read(split, shard)]


def check_origin(origin: Origin) -> None:
    """A file or a name, and a line from 1."""
    assert isinstance(origin, Origin), origin
    assert origin.file, "an origin names no file"
    assert origin.line is None or (type(origin.line) is int and origin.line >= 1), origin


def check_record(record: object) -> None:
    """Types as the contract has them, texts that UTF-8 can hold, weights that fit."""
    assert isinstance(record, TextRecord | ChatRecord | TokenRecord | BrokenRecord), record
    check_origin(record.origin)
    if isinstance(record, BrokenRecord):
        assert record.reason, record
        assert "\n" not in record.reason, record
    elif isinstance(record, TextRecord):
        assert isinstance(record.text, str), record
        assert _is_utf8(record.text), f"{record.origin}: UTF-8 cannot hold this text"
    elif isinstance(record, ChatRecord):
        _check_chat(record)
    else:
        _check_tokens(record)


def _check_chat(record: ChatRecord) -> None:
    assert record.messages, record
    for message in record.messages:
        assert isinstance(message, Mapping), record
        assert isinstance(message.get("role"), str), record
        assert isinstance(message.get("content"), str | list | None), record
    assert all(isinstance(tool, Mapping) for tool in record.tools), record
    assert isinstance(record.options, Mapping), record
    assert _is_utf8(content(record)), f"{record.origin}: UTF-8 cannot hold these messages"


def _check_tokens(record: TokenRecord) -> None:
    assert all(int(token) == token and token >= 0 for token in record.token_ids), record
    if record.weights is not None:
        assert len(record.weights) == len(record.token_ids), record
        assert all(math.isfinite(weight) and weight >= 0 for weight in record.weights), record


def content(record: Record | BrokenRecord) -> str:
    """What a record holds, wherever it stands: equal for records that would be trained on alike."""
    if isinstance(record, TextRecord):
        held: object = record.text
    elif isinstance(record, ChatRecord):
        held = [list(record.messages), list(record.tools), dict(record.options)]
    elif isinstance(record, TokenRecord):
        weights = None if record.weights is None else [float(weight) for weight in record.weights]
        held = [[int(token) for token in record.token_ids], weights]
    else:
        held = [str(record.origin), record.reason]
    return json.dumps([type(record).__name__, held], sort_keys=True, ensure_ascii=False, default=str)


def whole(records: Iterable[Record | BrokenRecord]) -> Iterator[tuple[Origin, str]]:
    """Origin and content of each."""
    return ((record.origin, content(record)) for record in records)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
