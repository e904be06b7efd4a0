"""Texts to token ids, and long documents to pieces that fit the budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from xtuner_core.contracts.batch import IGNORE, Document
from xtuner_core.contracts.tokenizer import Tokenizer


def tokenise(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Tensor]:
    """Yield each text's ids with `end_of_text` before and after them: int64 [1 + t + 1].

    The id in front lets the first token be predicted as the start of a document; the one behind is predicted
    too, so that a model learns where documents end and its probabilities form a complete code.
    """
    for text in texts:
        ids = [tokenizer.end_of_text, *tokenizer.encode(text), tokenizer.end_of_text]
        yield torch.tensor(ids, dtype=torch.int64)


def cut(ids: Tensor, limit: int) -> Iterator[Document]:
    """Cut a tokenised document into pieces for training; every token but the first is predicted exactly once.

    A piece's last label is the first token of the next one, so a cut costs context, never a target.

    :param ids: int64 [t], at least two tokens.
    :param limit: tokens of a piece at most; all but the last have this many.
    """
    inputs, labels = ids[:-1], ids[1:]
    for start in range(0, len(inputs), limit):
        stop = start + limit
        yield _document(inputs[start:stop], labels[start:stop], first=0)


def windows(ids: Tensor, limit: int, overlap: int) -> Iterator[Document]:
    """Cut a tokenised document into overlapping windows for scoring; every token but the first counts once.

    Each window after the first repeats at least `overlap` tokens of the one before as context of weight 0.
    The last window is moved back to end with the document: all windows of a long document are equally long.

    :param ids: int64 [t], at least two tokens.
    :param limit: tokens of a window at most.
    :param overlap: at least 0 and below `limit`.
    """
    inputs, labels = ids[:-1], ids[1:]
    counted, total = 0, len(inputs)
    while counted < total:
        start = 0 if counted == 0 else counted - overlap
        start = max(0, min(start, total - limit))
        stop = min(start + limit, total)
        yield _document(inputs[start:stop], labels[start:stop], first=counted - start)
        counted = stop


def _document(inputs: Tensor, labels: Tensor, *, first: int) -> Document:
    """Build a document of which the first `first` positions are context only."""
    weights = torch.ones(len(inputs))
    if first:
        labels = labels.clone()
        labels[:first] = IGNORE
        weights[:first] = 0.0
    return Document(token_ids=inputs, labels=labels, weights=weights)


def count_split(lengths: Sequence[int], limit: int) -> int:
    """Count how many of the tokenised documents (lengths as `tokenise` yields them) `cut` would split."""
    return sum(length - 1 > limit for length in lengths)
