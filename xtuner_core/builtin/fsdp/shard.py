"""Applies `fully_shard` to one unit, and tells the layout what became of its parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import Shard

from xtuner_core.builtin.fsdp.config import FsdpConfig
from xtuner_core.builtin.fsdp.placement import Spread, shard_dim
from xtuner_core.builtin.fsdp.units import Unit
from xtuner_core.contracts.parallelism import RankContext


class Sharder:
    """Shards units as one configuration says.

    :param spreads: by view; every rank makes their meshes in the same order.
    :param waiting: carriers of the units that stay whole from forward to backward, because one follows the other.
    """

    def __init__(
        self, config: FsdpConfig, context: RankContext, spreads: Mapping[str, Spread], waiting: frozenset[str]
    ) -> None:
        self._context, self._spreads = context, spreads
        self._meshes = {view: spread.mesh(context.ranks) for view, spread in spreads.items()}
        self._reshard = config.reshard_after_forward == "always"
        self._waiting = waiting
        pinned = "device.pinned_memory" in context.device.facts().capabilities
        self._offload = CPUOffloadPolicy(pin_memory=pinned) if config.offload else OffloadPolicy()

    def __call__(self, model: nn.Module, unit: Unit) -> None:
        """Shard a unit, whose parameters are whole and at their place in the model."""
        module = model.get_submodule(unit.carrier)
        ranks = self._context.ranks.size(*self._spreads[unit.view].shard)
        mine = {model.get_parameter(name): name for name in unit.parameters}
        for parameter, name in mine.items():
            self._tell(name, unit, shard_dim(parameter.shape, ranks))
        fully_shard(
            module,
            mesh=self._meshes[unit.view],
            reshard_after_forward=self._reshard and unit.carrier not in self._waiting,
            shard_placement_fn=lambda parameter: Shard(shard_dim(parameter.shape, ranks)),
            mp_policy=self._precision(unit),
            offload_policy=self._offload,
            ignored_params={parameter for parameter in module.parameters() if parameter not in mine},
        )
        _sum_gradients(module)

    def _precision(self, unit: Unit) -> MixedPrecisionPolicy:
        """The run's, or nothing for parameters that keep a dtype of their own; inputs are never cast."""
        policy = self._context.policy
        return MixedPrecisionPolicy(
            param_dtype=policy.compute if unit.dtype is None else None,
            reduce_dtype=policy.reduction if unit.dtype is None else None,
            cast_forward_inputs=False,
        )

    def _tell(self, name: str, unit: Unit, dim: int) -> None:
        # An expert's axes are those of its own view, also where both views put it on the same ranks.
        spread = self._spreads[unit.parameters[name]]
        layout = self._context.layout
        layout.split(name, dim, *spread.shard)
        layout.summed(name, *spread.replicate, *spread.shard)
        if unit.dtype is None:
            layout.cast(name)


def _sum_gradients(module: nn.Module) -> None:
    """Sums, not means; and by plain addition, since not every backend multiplies while it adds."""
    assert isinstance(module, FSDPModule)
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)
    # From torch 2.13 on: a rank whose pack met no token of a parameter sends zeros, and no other waits for it.
    unused = getattr(module, "set_reduce_scatter_unused_params", None)
    if unused is not None:
        unused(True, recurse=False)
