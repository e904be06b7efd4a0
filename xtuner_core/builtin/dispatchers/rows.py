"""From tokens to rows and back: each is the other's backward pass, and neither keeps a tensor of width D.

T tokens, D width, K chosen experts, R rows; `token_R` is the token of each row, `place_TK` the row of each choice, -1
where it has none here. Each row belongs to one choice, so that nothing is added up in an order that could change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Rows(NamedTuple):
    """Which choice each row stands for; without gradient."""

    token_R: Tensor
    """int64."""
    place_TK: Tensor
    """int64."""
    whole: bool
    """Whether every choice has a row."""

    def some(self, index_N: Tensor) -> Rows:
        """Those rows only, in that order."""
        found_R = torch.full_like(self.token_R, -1)
        found_R[index_N] = torch.arange(len(index_N), device=index_N.device)
        # One more at the end, which the choices without a row find at -1.
        padded_R = torch.cat([found_R, found_R.new_full((1,), -1)])
        return Rows(self.token_R[index_N], padded_R[self.place_TK], whole=False)


Which: TypeAlias = Callable[[], Rows]
"""Asked again in the backward pass, so that between the passes nobody keeps the indices of a round."""


def spread(x_TD: Tensor, rows: Which) -> Tensor:
    """[R, D]: each row is its token."""
    return _Spread.apply(x_TD, rows)  # type: ignore[no-any-return, no-untyped-call]


def gather_sum(rows_RD: Tensor, rows: Which) -> Tensor:
    """[T, D]: each token is the sum of its rows in the order of the columns, taken in float32 at least."""
    return _GatherSum.apply(rows_RD, rows)  # type: ignore[no-any-return, no-untyped-call]


def _spread(x_TD: Tensor, rows: Rows) -> Tensor:
    return x_TD.index_select(0, rows.token_R)


def _gather_sum(rows_RD: Tensor, rows: Rows) -> Tensor:
    wide = torch.promote_types(rows_RD.dtype, torch.float32)
    y_TD = rows_RD.new_zeros(len(rows.place_TK), rows_RD.shape[1], dtype=wide)
    if not len(rows_RD):
        return y_TD.to(rows_RD.dtype)
    for place_T in rows.place_TK.unbind(1):
        if rows.whole:
            y_TD += rows_RD.index_select(0, place_T)
        else:
            found_TD = rows_RD.index_select(0, place_T.clamp(min=0))
            y_TD += found_TD.masked_fill_((place_T < 0).unsqueeze(1), 0)
    return y_TD.to(rows_RD.dtype)


# What is asked for is kept beside what autograd saves: where a round is computed again, nothing after the experts is
# saved, so the collective that brings their outputs back is not called again.


class _Spread(Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, rows: Which) -> Tensor:
        ctx.rows = rows
        return _spread(x_TD, rows())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor, None]:
        return _gather_sum(grad_RD, ctx.rows()), None


class _GatherSum(Function):
    @staticmethod
    def forward(ctx: Any, rows_RD: Tensor, rows: Which) -> Tensor:
        ctx.rows = rows
        return _gather_sum(rows_RD, rows())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, None]:
        return _spread(grad_TD, ctx.rows()), None
