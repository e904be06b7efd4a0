"""Records that bring their token ids along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xtuner_core.contracts.dataset import BrokenRecord, TokenRecord
from xtuner_core.data.encoding.encoded import Encoded, Encoding


def encode_tokens(record: TokenRecord, vocabulary: int) -> Encoding:
    """Take ids and weights as they are, if they can be trained on.

    :param vocabulary: ids run from 0 to this, exclusive.
    """
    reason = _flaw(record, vocabulary)
    if reason:
        return BrokenRecord(origin=record.origin, reason=reason)
    weights = None if record.weights is None else np.asarray(record.weights, dtype=np.float32)
    return (Encoded(np.asarray(record.token_ids).astype(np.uint32), weights),)


def _flaw(record: TokenRecord, vocabulary: int) -> str:
    if len(record.token_ids) < 2:
        return f"{len(record.token_ids)} token ids; the first predicts the second, so at least 2 are needed"
    ids = _array(record.token_ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        return "token_ids is not a flat list of whole numbers"
    outside = np.flatnonzero((ids < 0) | (ids >= vocabulary))
    if outside.size:
        where = int(outside[0])
        return f"token {where} is {ids[where]}, but the tokenizer's ids run from 0 to {vocabulary - 1}"
    return "" if record.weights is None else _weights_flaw(record)


def _array(values: Sequence[object]) -> NDArray[Any]:
    """An array of numbers, or of objects where they are none."""
    try:
        return np.asarray(values)
    except ValueError:  # lists of different lengths
        return np.array([None])


def _weights_flaw(record: TokenRecord) -> str:
    weights = _array(record.weights or ())
    if weights.shape != (len(record.token_ids),) or weights.dtype.kind not in "iufb":
        return f"weights is not a flat list of {len(record.token_ids)} numbers, one for each token id"
    wrong = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if wrong.size:
        return f"weight {int(wrong[0])} is {weights[wrong[0]]}; weights are finite and not negative"
    return "" if weights[1:].any() else "no token has a weight above 0 (the first is never predicted)"
