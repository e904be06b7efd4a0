"""A row, which is a mapping by key, becomes a record, or says why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, Origin, Record, TextRecord
from xtuner_core.data.reading.faults import Fault, kind_of
from xtuner_core.data.reading.keys import COMPLETION, CONVERSATIONS, PROMPT, RecordKeys
from xtuner_core.data.reading.messages import check_messages, check_options, check_tools, of_prompt, of_turns
from xtuner_core.data.reading.token_ids import token_record

__all__ = ["RULES", "Fault", "dense", "to_record"]

RULES = 1
"""Part of fingerprints; raised when the same rows become other records."""


def to_record(row: Any, origin: Origin, keys: RecordKeys) -> Record | BrokenRecord:
    """The record that a row holds.

    :param row: a mapping by key; anything else is broken.
    :param keys: what stands under which key.
    """
    try:
        return _record(row, origin, keys)
    except Fault as fault:
        return BrokenRecord(origin=origin, reason=str(fault))


def _record(row: Any, origin: Origin, keys: RecordKeys) -> Record:
    if not isinstance(row, Mapping):
        raise Fault(f"a mapping of keys to values is wanted, not {kind_of(row)}")
    shape = keys.shape(row)
    if shape is None:
        raise Fault(keys.lacking(row))
    if shape == "tokens":
        return token_record(row, origin, keys)
    if shape == "text":
        text = row[keys.text_key]
        if not isinstance(text, str):
            raise Fault(f"{keys.text_key} is {kind_of(text)}, not a text")
        return TextRecord(origin=origin, text=text)
    return ChatRecord(
        origin=origin,
        messages=check_messages(_messages(row, keys)),
        tools=check_tools(row.get(keys.tools_key), keys.tools_key),
        options=check_options(row.get(keys.options_key), keys.options_key),
    )


def _messages(row: Mapping[str, Any], keys: RecordKeys) -> Any:
    if row.get(keys.messages_key) is not None:
        return row[keys.messages_key]
    if row.get(CONVERSATIONS) is not None:
        return of_turns(row[CONVERSATIONS])
    return of_prompt(row[PROMPT], row[COMPLETION])


def dense(row: Mapping[str, Any], keys: RecordKeys) -> dict[str, Any]:
    """A row of a table without the nulls that only stand for absent keys.

    A table gives every message and every tool all keys that any of them has. Inside conversations, tools and options
    a null is therefore dropped with its key; only a message's `content` stays.
    """
    nested = (keys.messages_key, keys.tools_key, keys.options_key, CONVERSATIONS, PROMPT, COMPLETION)
    return {key: _without_nulls(value) if key in nested else value for key, value in row.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = (
            (key, item) for key, item in value.items() if item is not None or (key == "content" and "role" in value)
        )
        return {key: _without_nulls(item) for key, item in kept}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
