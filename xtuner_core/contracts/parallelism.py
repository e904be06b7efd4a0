"""What a parallelism strategy is: it applies itself to a model that it does not know, and says what it did to it.

Roles tell it what is what (`xtuner_core.nn.roles`), `Ranks` where it stands, and to `Layout` it tells which part of
each parameter a rank keeps and over which ranks a gradient is already summed; the rest of the sum is the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from xtuner_core.contracts.device import Device
from xtuner_core.contracts.precision import PrecisionPolicy
from xtuner_core.views import Views

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh


class Ranks(Protocol):
    """The ranks of a run as one of them sees them. Groups and meshes are made by all ranks in the same order."""

    rank: int
    world_size: int
    views: Views

    def size(self, *axes: str) -> int:
        """Ranks along these axes together; 1 where there are none."""

    def coordinate(self, *axes: str) -> int:
        """Where this rank stands along these axes together."""

    def group(self, *axes: str) -> ProcessGroup:
        """The ranks that differ from this one along these axes only, over the device's backend; made once."""

    def mesh(self, *dims: tuple[str, ...]) -> DeviceMesh:
        """A mesh over this rank's neighbours with one dim for each tuple of axes, flattened where there are several."""


class Layout(Protocol):
    """Which part of each parameter a rank keeps, by the parameter's qualified name, which no strategy changes."""

    def split(self, name: str, dim: int, *axes: str) -> None:
        """Tell that the parameter now holds this rank's part along `dim`, cut along these axes together.

        Cuts are told in the order in which they are made. A dim of n entries on s ranks has ceil(n / s) on each until
        none are left, as `torch.chunk` cuts.
        """

    def held(self, name: str, *axes: str) -> None:
        """Tell that of the ranks along these axes this one alone has the parameter, whole (a stage of a pipeline)."""

    def summed(self, name: str, *axes: str) -> None:
        """Tell that the parameter's gradient is summed over these axes when the backward pass returns."""

    def cast(self, name: str) -> None:
        """Tell that the strategy itself casts the parameter to the compute dtype, so that it needs no master copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankContext:
    """Where a strategy stands when it applies itself."""

    ranks: Ranks
    layout: Layout
    device: Device
    policy: PrecisionPolicy
    followers: frozenset[str]
    """Parameters that follow the policy; the others keep a dtype of the model's choosing. Empty before its stage."""

    @property
    def torch_device(self) -> torch.device:
        """Where the model will live."""
        return self.device.torch_device


class Parallelism(Protocol):
    """A strategy subclasses it; all but `apply` may be left as it is."""

    def apply(self, model: nn.Module, context: RankContext) -> nn.Module:
        """Wrap, shard or replace modules of `model`, which is on the meta device, and return it.

        Parameters keep their qualified names, so that the weight map still finds them. A rank that is alone applies
        it too; then no collective may be left in the model.
        """

    def filled(self, model: nn.Module) -> None:
        """Told once the model has memory on the device, before weights are read into it."""
        return

    def micro_batch(self, model: nn.Module, *, last: bool) -> None:
        """Told before the forward pass of each micro-batch of a step; `last` is the one after which gradients count."""
        return

    def scored(self, model: nn.Module) -> None:
        """Told after forward passes that no backward pass follows (scoring, generation)."""
        return


class Schedule(Protocol):
    """What a strategy of which the record says `schedule=True` has beside the rest."""

    def run(self, work: Any) -> None:
        """Run forward and backward of all micro-batches of a step.

        :param work: an `engine.schedule.StepPass`: its micro-batches, the objective, where the sums go.
        """


class ParallelismFactory(Protocol):
    """What a parallelism provider's `factory` names."""

    def __call__(self, config: Any) -> Parallelism:
        """Build the strategy of `config`."""
