"""The strategy recompute (Chen et al. 2016, arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import NoReturn, cast

from torch import nn

from xtuner_core.builtin.recompute.config import RecomputeConfig
from xtuner_core.builtin.recompute.offload import Offload
from xtuner_core.builtin.recompute.region import Kept, KeptPlan, Recomputed, Region
from xtuner_core.config.layer_ranges import LayerRanges
from xtuner_core.contracts.device import Device, Offloading
from xtuner_core.contracts.parallelism import Parallelism, RankContext
from xtuner_core.errors import ComposeError
from xtuner_core.nn import iter_roles, select
from xtuner_core.nn.roles import RoledModule
from xtuner_core.records import Problem
from xtuner_core.roles import matches

ROUTER, DISPATCHER = "moe.router", "moe.dispatch"
PRODUCTS = ("attn.qkv", "attn.core", "attn.out", "mlp.up", "moe")
"""Roles whose outputs `keep: products` keeps. Of `mlp.down` nothing is needed again: what follows is a sum."""


class Recompute(Parallelism):
    """Changes the classes of the modules of a role, so that names, roles and operators stay as they are."""

    def __init__(self, config: RecomputeConfig) -> None:
        self._role, self._keep, self._offload = config.role, config.keep, config.offload
        self._layers = None if config.layers is None else LayerRanges.parse(config.layers)

    def apply(self, model: nn.Module, context: RankContext) -> nn.Module:
        """The same model; its modules of the role keep their inputs, and what `keep` says.

        :raises UnknownName: no module of the model matches.
        :raises ComposeError: it would recompute a choice of experts or what another pick recomputes, or the device
            cannot offload.
        """
        offload = self._opened(context.device) if self._offload else None
        chosen = list(_outermost(select(model, self._role, cast("Container[int] | None", self._layers))))
        self._check(model, chosen)
        for item in chosen:
            self._recompute(item.module, Region(offload))
        return model

    def _recompute(self, module: nn.Module, region: Region) -> None:
        for inside in [item for item in iter_roles(module) if item.module is not module]:
            if matches(inside.role, DISPATCHER) and hasattr(inside.module, "prepare"):
                _mix(KeptPlan, inside.module, region)
            elif matches(inside.role, ROUTER) or (self._keep == "products" and _is_product(inside.role)):
                _mix(Kept, inside.module, region)
        _mix(Recomputed, module, region)

    def _check(self, model: nn.Module, chosen: list[RoledModule]) -> None:
        done = [name for name, module in model.named_modules() if isinstance(module, Recomputed)]
        for item in chosen:
            if matches(item.role, ROUTER) or matches(item.role, DISPATCHER):
                self._refuse(f"would recompute the routing of {item.name}", "choose 'moe', 'moe.experts' or 'layer'")
            for inside in (item, *iter_roles(item.module)):
                if inside.role == "moe" and not any(matches(each.role, ROUTER) for each in iter_roles(inside.module)):
                    told = f"finds no module of role {ROUTER!r} in {item.name}, so it cannot keep the choice of experts"
                    self._refuse(told, "give the model's router that role")
            for name in done:
                if _within(item.name, name) or _within(name, item.name):
                    told = f"would recompute {item.name}, and another pick recomputes {name} already"
                    self._refuse(told, "give each of them layers of its own")

    def _opened(self, device: Device) -> Offload:
        if not isinstance(device, Offloading):
            told = f"cannot keep inputs in host memory: {device.facts().chip} has no way to do it"
            self._refuse(told, "set offload to false")
        return Offload(device)

    def _refuse(self, told: str, fix: str) -> NoReturn:
        message = f"the strategy recompute for the role {self._role!r} {told}"
        raise ComposeError([Problem(message=message, fix=fix, code="recompute", plugins=("recompute",))])


def _mix(kind: type[nn.Module], module: nn.Module, region: Region) -> None:
    old = type(module)
    module.__class__ = type(f"{kind.__name__}{old.__name__}", (kind, old), {"__module__": kind.__module__})
    object.__setattr__(module, "_region", region)


def _is_product(role: str) -> bool:
    return any(matches(role, product) for product in PRODUCTS)


def _outermost(found: Iterable[RoledModule]) -> Iterator[RoledModule]:
    """Of modules that come before those inside them, the ones that lie in no other."""
    last: str | None = None
    for item in found:
        if last is None or not _within(item.name, last):
            last = item.name
            yield item


def _within(name: str, other: str) -> bool:
    return name == other or name.startswith(f"{other}.") or not other
