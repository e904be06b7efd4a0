"""A stranger's strategy: output projections whose input channels are divided among ranks that have the same tokens.

As in Shoeybi et al. 2019 (arXiv 1909.08053, section 3) for the second matrix of a block; the first is left whole.

T tokens, I input channels, O output channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from xtuner_core.api import Dimension, ParallelismProvider, PluginInfo, hookimpl
from xtuner_core.contracts.parallelism import Parallelism, RankContext
from xtuner_core.nn import put, select, set_role

ROLES = ("attn.out", "mlp.down")


@dataclass(kw_only=True)
class TensorConfig:
    """How many ranks share a projection."""

    size: int = 1
    """Ranks that share each output projection."""


class _Whole(torch.autograd.Function):
    """Itself forward; backward the sum of what the ranks' parts found."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


class _Sum(torch.autograd.Function):
    """The sum of the ranks' parts; backward itself, which all ranks have alike."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, group: Any) -> Tensor:
        y = y.clone()
        dist.all_reduce(y, group=group)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class RowParallel(nn.Module):
    """A linear map [O, I] of which this rank has the columns of some inputs."""

    def __init__(self, weight: nn.Parameter, start: int, group: Any) -> None:
        super().__init__()
        self.weight = weight
        self.start, self.group = start, group

    def forward(self, x_TI: Tensor) -> Tensor:
        mine = _Whole.apply(x_TI, self.group)[..., self.start : self.start + self.weight.shape[1]]
        return _Sum.apply(functional.linear(mine, self.weight), self.group)


class Tensors(Parallelism):
    """Divides every projection of these roles."""

    def __init__(self, config: TensorConfig) -> None:
        self._size = config.size

    def apply(self, model: nn.Module, context: RankContext) -> nn.Module:
        if self._size == 1:
            return model
        with torch.device("cpu"):
            group = context.ranks.group("dense.tensor")
        for item in [found for role in ROLES for found in select(model, role)]:
            assert isinstance(item.module, nn.Linear)
            assert item.module.bias is None
            weight = item.module.weight
            each = weight.shape[1] // self._size
            mine = nn.Parameter(weight.new_empty(weight.shape[0], each), requires_grad=weight.requires_grad)
            start = context.ranks.coordinate("dense.tensor") * each
            put(model, item.name, set_role(RowParallel(mine, start, group), item.role))
            context.layout.split(f"{item.name}.weight", 1, "dense.tensor")
        return model


@hookimpl
def xtuner_plugin() -> PluginInfo:
    return PluginInfo(contract="1.0", summary="a test's tensor parallelism")


@hookimpl
def xtuner_parallelisms() -> Iterable[ParallelismProvider[Any]]:
    yield ParallelismProvider(
        name="tensor",
        factory=f"{__name__}:Tensors",
        config=TensorConfig,
        dimensions=(Dimension(name="dense.tensor", size="size", work="same"),),
        stage="tensor",
        after=("experts",),
        before=("recomputation",),
        summary="output projections divided among ranks",
    )
