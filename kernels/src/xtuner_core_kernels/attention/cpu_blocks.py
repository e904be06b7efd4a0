"""Blocks of queries on CPU: the keys that the queries of a block can see, and the mask of what some of them cannot.

Shapes: R query heads that share a key-value head, L tokens of a document, Q queries of a block, M = Q * R, S keys in
sight of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# With more queries, causal attention computes more scores that it masks; with fewer, the products are small.
BLOCK = 64


class Problem(NamedTuple):
    """What the passes need to know besides tensors."""

    lengths: tuple[int, ...]
    groups: int  # key-value heads
    repeats: int  # R
    scale: float
    causal: bool
    window: int | None


class Block(NamedTuple):
    """A block of queries and the keys that some of them see, as positions in the document."""

    queries: slice
    keys: slice
    mask_MS: Tensor | None  # added to the scores of the last keys: zero where seen, minus infinity elsewhere


def blocks(length: int, problem: Problem, dtype: torch.dtype) -> list[Block]:
    """The blocks of a document of that length."""
    return [Block(queries, keys, _mask(queries, keys, problem, dtype)) for queries, keys in _spans(length, problem)]


def count_scores(problem: Problem) -> int:
    """How many scores the blocks of all documents have."""
    pairs: int = sum(
        (queries.stop - queries.start) * (keys.stop - keys.start)
        for length in problem.lengths
        for queries, keys in _spans(length, problem)
    )
    return problem.groups * problem.repeats * pairs


def _spans(length: int, problem: Problem) -> Iterator[tuple[slice, slice]]:
    """Queries and keys of each block."""
    reach = length if problem.window is None else problem.window - 1
    for first in range(0, length, BLOCK):
        last = min(first + BLOCK, length)
        yield slice(first, last), slice(max(0, first - reach), last if problem.causal else min(length, last + reach))


def _mask(queries: slice, keys: slice, problem: Problem, dtype: torch.dtype) -> Tensor | None:
    if not problem.causal and problem.window is None:
        return None
    if problem.window is None:
        # What a query cannot see lies in its own block.
        keys = queries
    distance_QS = torch.arange(queries.start, queries.stop).unsqueeze(1) - torch.arange(keys.start, keys.stop)
    hidden_QS = distance_QS < 0 if problem.causal else torch.zeros_like(distance_QS, dtype=torch.bool)
    if problem.window is not None:
        hidden_QS |= distance_QS.abs() >= problem.window
    mask_QS = torch.zeros(hidden_QS.shape, dtype=dtype).masked_fill_(hidden_QS, float("-inf"))
    return mask_QS.repeat_interleave(problem.repeats, dim=0)
