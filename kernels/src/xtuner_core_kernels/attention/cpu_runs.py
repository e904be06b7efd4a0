"""Runs of packed documents of equal length on CPU, whose heads are batches of matrices for the vendor's library.

Shapes: T tokens, H heads, G key-value heads, R = H / G, C channels, B documents of a run, L tokens of each, Q of these
L, N = B * G, M = Q * R.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from xtuner_core_kernels.attention.cpu_blocks import BLOCK, Problem
from xtuner_core_kernels.support import statistics_dtype

# Scores of a block: what a cache of some MiB holds.
RUN_SCORES = 2**20


class Run(NamedTuple):
    """Consecutive documents of equal length."""

    start: int
    documents: int
    length: int


def runs(problem: Problem) -> Iterator[Run]:
    """Runs whose blocks of scores are within ``RUN_SCORES``, or of a single document."""
    start, heads = 0, problem.groups * problem.repeats
    for length, group in groupby(length for length in problem.lengths if length):
        waiting = len(list(group))
        most = max(1, RUN_SCORES // (heads * min(BLOCK, length) * length))
        while waiting:
            documents = min(waiting, most)
            yield Run(start, documents, length)
            start += documents * length
            waiting -= documents


def part(x_THC: Tensor, run: Run, groups: int) -> Tensor:
    """The run's part ``[B, G, L, R, C]``, a view."""
    run_THC = x_THC[run.start : run.start + run.documents * run.length]
    return run_THC.view(run.documents, run.length, groups, -1, x_THC.shape[-1]).transpose(1, 2)


def read(x_BGQRC: Tensor) -> Tensor:
    """A copy ``[N, M, C]`` in the dtype of the statistics."""
    copy_BGQRC = torch.empty(x_BGQRC.shape, dtype=statistics_dtype(x_BGQRC.dtype)).copy_(x_BGQRC)
    return copy_BGQRC.view(x_BGQRC.shape[0] * x_BGQRC.shape[1], -1, x_BGQRC.shape[-1])


def write(x_BGQRC: Tensor, x_NMC: Tensor, factor: Tensor | float) -> None:
    """Write what :func:`read` would read, times a number or ``[N, M, 1]``."""
    if isinstance(factor, Tensor):
        factor = factor.view(*x_BGQRC.shape[:-1], 1)
    torch.mul(x_NMC.view(x_BGQRC.shape), factor, out=x_BGQRC)


class Room:
    """Where scores go: into one piece of memory, or each block's into its own if they are to be kept."""

    def __init__(self, matrices_NLC: Tensor, run: Run, problem: Problem, keep: bool) -> None:
        rows = min(BLOCK, run.length) * problem.repeats
        self._buffer = None if keep else matrices_NLC.new_empty(matrices_NLC.shape[0] * rows * run.length)

    def take(self, q_NMC: Tensor, k_NSC: Tensor) -> Tensor:
        """Uninitialised ``[N, M, S]``, contiguous: only then is a batch of products one call of the library."""
        count, rows, keys = q_NMC.shape[0], q_NMC.shape[1], k_NSC.shape[1]
        if self._buffer is None:
            return q_NMC.new_empty(count, rows, keys)
        return self._buffer[: count * rows * keys].view(count, rows, keys)
