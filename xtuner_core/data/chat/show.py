"""A record as a person can look at it: its texts, cut where training on it begins and ends; imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, Record
from xtuner_core.contracts.tokenizer import Alignment, Tokenizer
from xtuner_core.data.encoding.chat import ChatEncoder
from xtuner_core.data.encoding.encoded import Encoded, Encoder


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens in a row that count the same."""

    text: str
    tokens: int
    weight: float
    """What each counts as a target; 0 is context. A document's first token is never a target."""


def show(record: Record, encoder: Encoder, tokenizer: Tokenizer) -> list[list[Piece]] | BrokenRecord:
    """The pieces of each document of a record, or why it has none.

    A conversation is shown as the template rendered it, anything else as the tokenizer decodes its ids.
    """
    (answer,) = encoder([record])
    if isinstance(answer, BrokenRecord):
        return answer
    if isinstance(record, ChatRecord) and isinstance(encoder, ChatEncoder):
        texts = encoder.aligned(record)
        return [_rendered(text, tokens, each) for (text, tokens), each in zip(texts, answer, strict=True)]
    return [_decoded(document, tokenizer) for document in answer]


def _rendered(text: str, tokens: Alignment, document: Encoded) -> list[Piece]:
    borders = [0, *tokens.starts[1:].tolist(), len(text)]
    return [
        Piece(text[borders[start] : borders[stop]], stop - start, weight) for start, stop, weight in _runs(document)
    ]


def _decoded(document: Encoded, tokenizer: Tokenizer) -> list[Piece]:
    return [
        Piece(tokenizer.decode(document.token_ids[start:stop].tolist(), special_tokens=True), stop - start, weight)
        for start, stop, weight in _runs(document)
    ]


def _runs(document: Encoded) -> Iterator[tuple[int, int, float]]:
    """Yield first token, the one behind the last, and the weight of each stretch of equal weights."""
    weights = _targets(document)
    borders = [0, *(np.flatnonzero(np.diff(weights)) + 1).tolist(), len(weights)]
    for start, stop in pairwise(borders):
        yield start, stop, float(weights[start])


def _targets(document: Encoded) -> NDArray[np.float32]:
    weights = np.ones(len(document.token_ids), np.float32) if document.weights is None else document.weights.copy()
    weights[0] = 0
    return weights
