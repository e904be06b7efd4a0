"""Pieces of stored documents as documents of a batch: labels and weights shifted. t positions of a piece."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from xtuner_core.contracts.batch import DATASET, IGNORE, Axis, Document, Field
from xtuner_core.data.packs import Piece
from xtuner_core.data.store import TokenStore


class Documents:
    """Reads pieces.

    :param stores: of the run's datasets, by their place; None for one without this part.
    """

    def __init__(self, stores: Sequence[TokenStore | None]) -> None:
        self._stores = tuple(stores)

    def __call__(self, piece: Piece) -> Document:
        """Read a piece; the label of its last position is the document's next token."""
        store = self._stores[piece.dataset]
        assert store is not None
        ids, weights = store.span(piece.document, piece.start, piece.start + piece.length + 1)
        tokens = torch.from_numpy(ids.astype(np.int64))
        targets = torch.ones(piece.length) if weights is None else torch.from_numpy(weights[1:])
        labels = tokens[1:] if weights is None else torch.where(targets > 0, tokens[1:], IGNORE)
        dataset = Field(tensor=torch.tensor([piece.dataset]), axis=Axis.DOCUMENT)
        return Document(token_ids=tokens[:-1], labels=labels, weights=targets, fields={DATASET: dataset})
