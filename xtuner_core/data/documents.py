"""Pieces of stored documents as documents of a batch: labels and weights shifted.

S tokens of all pieces, each with the one behind its last position.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from xtuner_core.contracts.batch import DATASET, IGNORE, Axis, Document, Field
from xtuner_core.data.packs import Piece
from xtuner_core.data.store import TokenStore


class Documents:
    """Reads pieces.

    :param stores: of the run's datasets, by their place; None for one without this part.
    """

    def __init__(self, stores: Sequence[TokenStore | None]) -> None:
        self._stores = tuple(stores)

    def __call__(self, pieces: Sequence[Piece]) -> list[Document]:
        """Read pieces; the label of a piece's last position is the document's next token."""
        # One tensor for all, of which the documents are views: most of them are short.
        tokens_S, labels_S, weights_S = self._read(pieces)
        documents, start = [], 0
        for piece in pieces:
            stop = start + piece.length
            documents.append(
                Document(
                    token_ids=tokens_S[start:stop],
                    labels=labels_S[start + 1 : stop + 1],
                    weights=weights_S[start + 1 : stop + 1],
                    fields={DATASET: _mark(piece.dataset)},
                )
            )
            start = stop + 1
        return documents

    def _read(self, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, tokens as labels, and weights; none of them shifted."""
        size = sum(piece.length + 1 for piece in pieces)
        tokens_S, weights_S = np.empty(size, dtype=np.int64), np.ones(size, dtype=np.float32)
        start = 0
        for piece in pieces:
            store = self._stores[piece.dataset]
            assert store is not None
            stop = start + piece.length + 1
            ids, weights = store.span(piece.document, piece.start, piece.start + piece.length + 1)
            tokens_S[start:stop] = ids
            if weights is not None:
                weights_S[start:stop] = weights
            start = stop
        labels_S = np.where(weights_S > 0, tokens_S, IGNORE)
        return torch.from_numpy(tokens_S), torch.from_numpy(labels_S), torch.from_numpy(weights_S)


@lru_cache(maxsize=64)
def _mark(dataset: int) -> Field:
    return Field(tensor=torch.tensor([dataset]), axis=Axis.DOCUMENT)
