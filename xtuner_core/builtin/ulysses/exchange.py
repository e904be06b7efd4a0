"""An all-to-all with equal shares, and its gradient: the same the other way, which is the same."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup


def exchange(group: ProcessGroup, x_SN: Tensor) -> Tensor:
    """Send `x_SN[s]` to rank s of the group, and receive what rank s sends at its place: [S, ...], contiguous.

    Nothing waits for the device. Whether a gradient is needed must be the same on every rank.
    """
    return _Exchange.apply(group, x_SN)  # type: ignore[no-any-return, no-untyped-call]


def _exchanged(group: ProcessGroup, x_SN: Tensor) -> Tensor:
    sent = x_SN.contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    return received


class _Exchange(Function):
    @staticmethod
    def forward(ctx: Any, group: ProcessGroup, x_SN: Tensor) -> Tensor:
        ctx.group = group
        return _exchanged(group, x_SN)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_SN: Tensor) -> tuple[None, Tensor]:
        return None, _exchanged(ctx.group, grad_SN)
