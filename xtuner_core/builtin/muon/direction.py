"""From the momentum of one parameter to the direction of its step: each matrix in it orthogonalised by itself.

This is the one place of Muon that needs a whole matrix; everything before and after works entry by entry, so that
where ranks hold parts of a matrix the argument is gathered, and each keeps its part of the result.

S stack, M rows, N columns.

A stack of experts [S, M, N] is S matrices. Queries, keys and values, or gate and up, that share a parameter are
matrices of their own: an orthogonal step has all singular values alike, and one over a fused matrix would couple maps
that the model applies apart, and depend on how an implementation happens to lay them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xtuner_core.builtin.muon.newton_schulz import orthogonalised
from xtuner_core.contracts.weights import Span

ADJUSTMENTS: Mapping[str, Callable[[int, int], float]] = {
    "match_rms": lambda fan_out, fan_in: 0.2 * max(fan_out, fan_in) ** 0.5,
    "original": lambda fan_out, fan_in: max(1.0, fan_out / fan_in) ** 0.5,
    "spectral": lambda fan_out, fan_in: (fan_out / fan_in) ** 0.5,
}
"""Factor on an orthogonal matrix [fan_out, fan_in], by the name of `MuonConfig.adjust`: Liu et al. 2025 (arXiv
2502.16982, section 2.2, eq. 4); Jordan et al. 2024; Yang et al. 2023 (arXiv 2310.17813, condition 1)."""

PIECE = 2**26
"""Entries of a stack that are iterated on at once, so that many large experts need no multiple of their own memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """How matrices are orthogonalised and scaled."""

    steps: int
    eps: float
    dtype: torch.dtype
    adjust: Callable[[int, int], float]

    def __call__(self, update: Tensor, matrices: Sequence[tuple[Span, Span]]) -> Tensor:
        """Orthogonalise the matrices of one parameter.

        :param update: [M, N] or [S, M, N], whole.
        :param matrices: rows and columns of those that lie fused in it; empty where it is one.
        :return: a tensor of its shape and dtype; what no matrix covers is 0.
        """
        if not matrices:
            return self._stack(update)
        direction = torch.zeros_like(update)
        for rows, columns in matrices:
            region = (..., _slice(rows), _slice(columns))
            direction[region] = self._stack(update[region])
        return direction

    def _stack(self, update: Tensor) -> Tensor:
        stack_SMN = update.reshape(-1, *update.shape[-2:])
        found_SMN = torch.empty_like(stack_SMN)
        count = max(1, PIECE // stack_SMN[0].numel())
        for piece, found in zip(torch.split(stack_SMN, count), torch.split(found_SMN, count), strict=True):
            found.copy_(orthogonalised(piece, steps=self.steps, eps=self.eps, dtype=self.dtype))
        return found_SMN.mul_(self.adjust(*update.shape[-2:])).view(update.shape)


def _slice(span: Span) -> slice:
    return slice(span.start, span.stop, span.step)
