"""Documents against the budget of tokens: which pieces they become. D documents, P pieces of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]
OverBudget = Literal["split", "truncate", "refuse"]


@dataclass(frozen=True, slots=True)
class Spans:
    """Pieces, by where they lie."""

    documents: Array
    """int64 [P]."""
    starts: Array
    """int64 [P]: first token of the piece within its document."""
    lengths: Array
    """int64 [P]: positions at which a token is predicted, at least 1. The token behind the last is its label."""


class Pieces:
    """The pieces of a part of a dataset, in the order of its documents; none is made before it is asked for.

    A document of t tokens has t - 1 positions, since its last token is only predicted. Cutting loses none of them:
    a piece's last label is the first token of the next one.

    :param lengths: tokens of each document, int64 [D].
    :param limit: positions of a piece at most; all but a document's last piece have this many.
    :param over_budget: whether a longer document is split, or loses what is beyond. `refuse` cuts nothing: the
        caller has refused what `longest` names.
    """

    def __init__(self, lengths: Array, limit: int, over_budget: OverBudget) -> None:
        self._limit = limit
        self._positions = np.maximum(lengths - 1, 0)
        over = self._positions > limit
        self.over = int(over.sum())
        """Documents above the limit."""
        self.without_target = int((self._positions == 0).sum())
        """Documents of fewer than two tokens, in which nothing can be predicted: they have no piece."""
        whole = int(self._positions.sum())
        if over_budget == "truncate":
            self._positions = np.minimum(self._positions, limit)
        self._ends = np.cumsum(-(-self._positions // limit))
        self.tokens = int(self._positions.sum())
        """Positions of all pieces."""
        self.truncated_tokens = whole - self.tokens
        """Positions that no piece has."""

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, pieces: Array) -> Spans:
        """Find pieces by number, int64 [P]."""
        documents = np.searchsorted(self._ends, pieces, side="right")
        first = np.where(documents > 0, self._ends[documents - 1], 0)
        starts = (pieces - first) * self._limit
        return Spans(documents, starts, np.minimum(self._positions[documents] - starts, self._limit))
