"""The held-out documents that an evaluation scores: all of them, or as many as a budget of tokens allows.

D documents of a dataset, C of them chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xtuner_core.contracts.batch import DATASET, Axis, Document, Field
from xtuner_core.data.encoding.encoded import Encoded
from xtuner_core.data.shuffle import Permutation
from xtuner_core.data.store import TokenStore
from xtuner_core.data.windows import windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The chosen documents of one dataset."""

    name: str
    store: TokenStore
    chosen_C: NDArray[np.int64]
    """Their numbers, rising."""

    def __iter__(self) -> Iterator[Encoded]:
        return (self.store[int(index)] for index in self.chosen_C)

    @property
    def utf8_bytes(self) -> int:
        """Size of the documents as text; 0 where they are not all plain text that is trained on whole."""
        bytes_C, lengths_C = self.store.text_bytes[self.chosen_C], self.store.lengths[self.chosen_C]
        plain = self.store.header.weights is None
        empty_C = lengths_C == 2  # the ends of a text, and nothing between them
        return int(bytes_C.sum()) if plain and ((bytes_C > 0) | empty_C).all() else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A fixed choice of the held-out documents of a run's datasets."""

    parts: tuple[Part, ...]
    """One for each dataset that has a held-out part, in the order of the run's picks."""

    @property
    def documents(self) -> int:
        """Documents that are scored."""
        return sum(len(part.chosen_C) for part in self.parts)

    @property
    def available(self) -> int:
        """Documents of which they were chosen."""
        return sum(len(part.store) for part in self.parts)

    def windows(self, limit: int, overlap: float) -> Iterator[Document]:
        """Yield overlapping windows, marked with the field `DATASET`.

        :param limit: tokens of a window at most.
        :param overlap: share of it, in [0, 1).
        """
        shared = min(int(limit * overlap), limit - 1)
        for index, part in enumerate(self.parts):
            mark = {DATASET: Field(tensor=torch.tensor([index]), axis=Axis.DOCUMENT)}
            for encoded in part:
                for window in windows(encoded, limit, shared):
                    yield replace(window, fields=mark)


def choose_held_out(stores: Mapping[str, TokenStore], tokens: int | None) -> HeldOut:
    """Choose documents, the same ones in every run over the same data.

    Where there are more tokens than the budget, each dataset gets an equal share of it, and what a small one leaves
    goes to the others. Documents are taken in an order that is shuffled by their number alone: a source that is
    sorted would show nothing but one of its ends otherwise. One document at least is taken of each dataset.

    :param stores: by the name of the dataset.
    :param tokens: budget; None takes all.
    """
    sizes = {name: int(store.lengths.sum()) for name, store in stores.items()}
    chosen: dict[str, NDArray[np.int64]] = {}
    left = sum(sizes.values()) if tokens is None else tokens
    for done, name in enumerate(sorted(stores, key=lambda name: sizes[name])):
        chosen[name] = _within(stores[name].lengths, left // (len(stores) - done))
        left = max(0, left - int(stores[name].lengths[chosen[name]].sum()))
    return HeldOut(parts=tuple(Part(name=name, store=store, chosen_C=chosen[name]) for name, store in stores.items()))


def _within(lengths_D: NDArray[Any], budget: int) -> NDArray[np.int64]:
    """Take documents of a shuffled order until the budget is used."""
    if lengths_D.sum() <= budget:
        return np.arange(len(lengths_D))
    order_D = Permutation(len(lengths_D), "held out")(np.arange(len(lengths_D)))
    within = int((lengths_D[order_D].cumsum() <= budget).sum())
    return np.sort(order_D[: max(1, within)])
