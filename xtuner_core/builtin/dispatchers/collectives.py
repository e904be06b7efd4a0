"""Differentiable collectives of a group; without a group this rank is alone, and nothing is called.

Whether a tensor needs a gradient must be the same on every rank of the group: the backward pass is a collective too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup


def exchange(
    group: ProcessGroup | None, sent: Sequence[int], received: Sequence[int], *parts: Tensor
) -> tuple[Tensor, ...]:
    """Send consecutive rows of each tensor to the ranks in turn, and receive theirs in that order.

    :param sent: rows for each rank.
    :param received: rows from each rank.
    """
    if group is None:
        return parts
    return _Exchange.apply(group, list(sent), list(received), *parts)  # type: ignore[no-any-return, no-untyped-call]


def gather(group: ProcessGroup | None, x: Tensor) -> Tensor:
    """The tensors of all ranks, which are of one shape, one after the other; its gradients are summed."""
    return x if group is None else _Gather.apply(group, x)  # type: ignore[no-untyped-call]


def scatter_sum(group: ProcessGroup | None, x: Tensor) -> Tensor:
    """This rank's part of the sum of all ranks' tensors, divided evenly along the first dim."""
    return x if group is None else _ScatterSum.apply(group, x)  # type: ignore[no-untyped-call]


def _exchanged(group: ProcessGroup, sent: list[int], received: list[int], part: Tensor) -> Tensor:
    found = part.new_empty(sum(received), *part.shape[1:])
    dist.all_to_all_single(found, part.contiguous(), received, sent, group=group)
    return found


def _gathered(group: ProcessGroup, x: Tensor) -> Tensor:
    found = x.new_empty(dist.get_world_size(group) * len(x), *x.shape[1:])
    dist.all_gather_into_tensor(found, x.contiguous(), group=group)
    return found


def _scattered(group: ProcessGroup, x: Tensor) -> Tensor:
    found = x.new_empty(len(x) // dist.get_world_size(group), *x.shape[1:])
    dist.reduce_scatter_tensor(found, x.contiguous(), group=group)
    return found


class _Exchange(Function):
    """One node for all tensors, so that every rank sends their gradients in one order."""

    @staticmethod
    def forward(
        ctx: Any, group: ProcessGroup, sent: list[int], received: list[int], *parts: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.group, ctx.sent, ctx.received = group, sent, received
        return tuple(_exchanged(group, sent, received, part) for part in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[3:]
        back = (ctx.group, ctx.received, ctx.sent)
        found = (_exchanged(*back, grad) if need else None for grad, need in zip(grads, needed, strict=True))
        return None, None, None, *found


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, group: ProcessGroup, x: Tensor) -> Tensor:
        ctx.group = group
        return _gathered(group, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, _scattered(ctx.group, grad)


class _ScatterSum(Function):
    @staticmethod
    def forward(ctx: Any, group: ProcessGroup, x: Tensor) -> Tensor:
        ctx.group = group
        return _scattered(group, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, _gathered(ctx.group, grad)


def shared_counts(group: ProcessGroup | None, mine: Tensor) -> Tensor:
    """[P, n]: what each rank counted; int64 without gradient."""
    with torch.no_grad():
        return mine.unsqueeze(0) if group is None else _gathered(group, mine.unsqueeze(0))
