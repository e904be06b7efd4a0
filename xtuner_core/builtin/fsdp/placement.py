"""Over which ranks a view's parameters are sharded, over which they are the same, and along which dim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xtuner_core.contracts.parallelism import Ranks
from xtuner_core.views import REPLICATE, Views

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

HOLDS_OTHERS = "expert.parallel"
"""The axis along which ranks hold other experts; over it nothing is shared."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the parameters of a view go."""

    replicate: tuple[str, ...]
    """Axes along which ranks hold the same shards."""
    shard: tuple[str, ...]
    """Axes along which ranks, counted together, hold different shards."""

    @classmethod
    def over(cls, views: Views, view: str) -> Spread:
        """Shard over every axis along which ranks would hold the same weights and do other work.

        Along `data`, which no strategy owns, shards are replicated, as the sizes that were asked for say.
        """
        same, shared = (REPLICATE, f"{view}.data"), ("same", "parts")
        axes = [axis.name for axis in views.axes[view] if axis.work not in shared and axis.name != HOLDS_OTHERS]
        return cls(
            replicate=tuple(name for name in axes if name in same),
            shard=tuple(name for name in axes if name not in same),
        )

    def mesh(self, ranks: Ranks) -> DeviceMesh:
        """The ranks as `fully_shard` takes them: two dims where shards are replicated, else one."""
        replicate, shard = (
            tuple(axis for axis in axes if ranks.size(axis) > 1) for axes in (self.replicate, self.shard)
        )
        shard = shard or self.shard[:1]
        return ranks.mesh(replicate, shard) if replicate else ranks.mesh(shard)

    def same_ranks(self, other: Spread, views: Views) -> bool:
        """Whether both put the same parts on the same ranks; ranks being counted alike, the first one's tell."""
        mine, theirs = (
            [views.members(0, *axes) for axes in (spread.replicate, spread.shard)] for spread in (self, other)
        )
        return mine == theirs


def shard_dim(shape: Sequence[int], ranks: int) -> int:
    """The dim that is cut: the first, or where it has fewer entries than ranks the next that divides evenly.

    Where none does it is the first after all, and some ranks hold nothing.
    """
    if shape[0] >= ranks:
        return 0
    return next((dim for dim in range(1, len(shape)) if shape[dim] and shape[dim] % ranks == 0), 0)
