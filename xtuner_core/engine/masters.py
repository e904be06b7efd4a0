"""The precision policy where no data strategy applies it: master copies that the optimizer updates.

A parameter that a model makes in the policy's compute dtype follows the policy; one that it makes in a dtype
of its own choosing (a float32 router, say) keeps that in computation, in reduction and in the optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xtuner_core.contracts.optimizer import OptimizedParameter, Shards
from xtuner_core.contracts.parallelism import Ranks
from xtuner_core.contracts.precision import PrecisionPolicy
from xtuner_core.engine.gradients import GradientSum
from xtuner_core.engine.matrices import fused_matrices
from xtuner_core.engine.ranks.layout import RankLayout, RankShards, local
from xtuner_core.engine.rules import Treatment
from xtuner_core.errors import RunError
from xtuner_core.nn.roles import parameter_role


def lift(model: nn.Module, policy: PrecisionPolicy) -> frozenset[str]:
    """Give the parameters that follow the policy its parameter dtype, so that they are filled in full.

    :param model: on the meta device, where a change of dtype costs nothing.
    :returns: their names.
    """
    followers = {name: p for name, p in model.named_parameters() if p.dtype == policy.compute}
    for parameter in followers.values():
        parameter.data = parameter.data.to(policy.parameter)
    return frozenset(followers)


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterWeights:
    """What the optimizer sees of a model, and what the model sees of the optimizer's work."""

    optimized: tuple[OptimizedParameter, ...]
    """Every trainable parameter once, tied ones under their first name."""
    gradients: GradientSum
    """In the policy's reduction dtype."""
    copies: tuple[tuple[nn.Parameter, Tensor], ...]
    """Parameters that have a master copy, with it."""

    def publish(self) -> None:
        """Round the master copies into the parameters that forward and backward work with."""
        if self.copies:
            parameters, masters = zip(*self.copies, strict=True)
            with torch.no_grad():
                torch._foreach_copy_(list(parameters), list(masters))


def master_weights(
    model: nn.Module,
    policy: PrecisionPolicy,
    followers: frozenset[str],
    treatments: Mapping[str, Treatment] | None = None,
    placed: Placed | None = None,
) -> MasterWeights:
    """Set a filled model to its compute dtype, keeping what it was filled with as master copies.

    :param followers: what `lift` returned.
    :param treatments: what the run's rules come to (`rules.resolve`); freezing has been done.
    :param placed: where the strategies put the parameters; None where this rank is alone.
    :raises RunError: no parameter is trainable.
    """
    optimized: list[OptimizedParameter] = []
    copies: list[tuple[nn.Parameter, Tensor]] = []
    sums: list[tuple[nn.Parameter, torch.dtype]] = []
    describe = _Describer(model, treatments or {}, placed)
    for name, parameter in model.named_parameters():
        follows = name in followers
        cast = placed is not None and placed.layout.is_cast(name)
        master = _lower(parameter, policy) if follows and not cast else parameter
        if not parameter.requires_grad:
            continue
        optimized.append(describe(name, local(master)))
        sums.append((parameter, policy.reduction if follows else parameter.dtype))
        if master is not parameter:
            copies.append((parameter, master))
    if not optimized:
        raise RunError("no parameter of the model is trainable", fix="leave some of them unfrozen")
    gradients = GradientSum([parameter for parameter, _ in sums], [dtype for _, dtype in sums])
    return MasterWeights(optimized=tuple(optimized), gradients=gradients, copies=tuple(copies))


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the strategies put a model's parameters."""

    layout: RankLayout
    ranks: Ranks

    def shards(self, name: str) -> Shards | None:
        """How a parameter is divided; None where this rank has all of it."""
        return RankShards(self.layout, self.ranks, name) if self.layout.cuts(name) else None


class _Describer:
    """What an optimizer is told of each parameter."""

    def __init__(self, model: nn.Module, treatments: Mapping[str, Treatment], placed: Placed | None) -> None:
        self._roles = parameter_role(model)
        self._matrices = fused_matrices(model, None if placed is None else placed.layout.whole)
        self._treatments = treatments
        self._placed = placed

    def __call__(self, name: str, tensor: Tensor) -> OptimizedParameter:
        role, layer = self._roles[name]
        treatment = self._treatments.get(name, Treatment())
        return OptimizedParameter(
            name=name,
            role=role,
            layer=layer,
            tensor=tensor,
            learning_rate_factor=treatment.learning_rate_factor,
            weight_decay=treatment.weight_decay,
            group=treatment.group,
            matrices=self._matrices.get(name, ()),
            shards=None if self._placed is None else self._placed.shards(name),
        )


def _lower(parameter: nn.Parameter, policy: PrecisionPolicy) -> Tensor:
    """Set the parameter to the compute dtype, and return what is optimized: itself or its master."""
    if policy.compute == policy.parameter:
        return parameter
    master = parameter.detach()
    parameter.data = master.to(policy.compute)
    return master
