"""What an encoder makes of a record. t tokens of a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xtuner_core.contracts.dataset import BrokenRecord, Record


@dataclass(frozen=True, slots=True)
class Encoded:
    """One document."""

    token_ids: NDArray[np.uint32]
    """[t], t at least 1."""
    weights: NDArray[np.float32] | None = None
    """[t]: what each token counts as a target (not shifted; the first has nothing before it to be predicted from,
    so its weight is never used); None counts every token 1."""

    def __post_init__(self) -> None:
        assert self.token_ids.dtype == np.uint32, self.token_ids.dtype
        if self.weights is not None:
            assert self.weights.dtype == np.float32, self.weights.dtype
            assert self.weights.shape == self.token_ids.shape, (self.weights.shape, self.token_ids.shape)


Encoding = tuple[Encoded, ...] | BrokenRecord
"""A record's documents, at least one, or why there are none. A conversation of which the chat template renders
earlier turns otherwise than when the model produced them becomes several documents; anything else becomes one."""


class Encoder(Protocol):
    """Records to documents. It is pickled to the processes that tokenise."""

    def fingerprint(self) -> str:
        """Identify everything that decides what comes out: tokenizer, templates, settings; hexadecimal SHA-256.

        Folders and the number of processes are not among it.
        """

    def __call__(self, records: Sequence[Record | BrokenRecord]) -> list[Encoding]:
        """Answer each record, in order. A broken one is passed on.

        Bad content never raises: the answer to it is a `BrokenRecord` with the record's origin and the reason.
        Memory grows with the texts of one call: some hundred records, or some megabytes of them, are right.
        """
