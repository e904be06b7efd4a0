"""Token ids that were made elsewhere, with the labels or weights that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from xtuner_core.contracts.dataset import Origin, TokenRecord
from xtuner_core.data.reading.faults import Fault, kind_of
from xtuner_core.data.reading.keys import PADDING, RecordKeys

IGNORED = -100
"""The label of a token that is no target (`ignore_index` of PyTorch's cross entropy)."""


def token_record(row: Mapping[str, Any], origin: Origin, keys: RecordKeys) -> TokenRecord:
    """The ids of a row.

    :raises Fault: ids, labels or weights are of a wrong type or length, or the row is padded.
    """
    ids = _list(row, keys.token_ids_key)
    wrong = next((item for item in ids if type(item) is not int or item < 0), None)
    if wrong is not None:
        raise Fault(f"{keys.token_ids_key} holds {wrong!r}, which is no token id")
    if row.get(PADDING) is not None and 0 in _list(row, PADDING):
        raise Fault(f"{PADDING} marks padding; store the ids without it")
    return TokenRecord(origin=origin, token_ids=ids, weights=_weights(row, ids, keys))


def _weights(row: Mapping[str, Any], ids: Sequence[int], keys: RecordKeys) -> list[float] | None:
    given = [key for key in (keys.labels_key, keys.weights_key) if row.get(key) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise Fault(f"{given[0]} and {given[1]} exclude each other")
    values = _list(row, given[0])
    if len(values) != len(ids):
        raise Fault(f"{given[0]} has {len(values)} entries for {len(ids)} token ids")
    return _of_labels(values, ids, given[0]) if given[0] == keys.labels_key else _checked(values, given[0])


def _of_labels(labels: Sequence[Any], ids: Sequence[int], key: str) -> list[float]:
    for place, (label, token_id) in enumerate(zip(labels, ids, strict=True)):
        if label not in (IGNORED, token_id):
            raise Fault(f"entry {place} of {key} is {label!r}, neither {IGNORED} nor the token id {token_id}")
    return [0.0 if label == IGNORED else 1.0 for label in labels]


def _checked(weights: Sequence[Any], key: str) -> list[float]:
    for weight in weights:
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (number and isfinite(weight) and weight >= 0):
            raise Fault(f"{key} holds {weight!r}, which is no finite number from 0")
    return [float(weight) for weight in weights]


def _list(row: Mapping[str, Any], key: str) -> list[Any]:
    value = row[key]
    if not isinstance(value, list):
        raise Fault(f"{key} is {kind_of(value)}, not a list")
    return value
