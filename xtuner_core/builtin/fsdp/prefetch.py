"""Which weights are asked for ahead: those of the layers that are computed next, in both directions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.distributed.fsdp import FSDPModule

from xtuner_core.builtin.fsdp.units import ROOT, Unit


def ask_ahead(model: nn.Module, units: Sequence[Unit], layers: Sequence[str], heads: Sequence[str], count: int) -> None:
    """Let every layer ask for the weights of the `count` after it, and in the backward pass of those before it.

    A layer asks for what lies apart within it too (experts, a router in a dtype of its own), so that a block finds
    its weights there.

    :param layers: their names in the order in which they are computed.
    :param heads: names of the modules with which the backward pass begins.
    :param count: 0 changes nothing: PyTorch asks for one layer, when the host comes to it.
    """
    if not count:
        return
    bundles = [bundle for bundle in (_bundle(model, units, name) for name in layers) if bundle]
    for at, (first, *inner) in enumerate(bundles):
        first.set_modules_to_forward_prefetch(inner + _flat(bundles[at + 1 : at + 1 + count]))
        first.set_modules_to_backward_prefetch(inner + _flat(bundles[max(at - count, 0) : at][::-1]))
    if not bundles:
        return
    for module in _bundle(model, units, ROOT)[:1]:
        module.set_modules_to_forward_prefetch(_flat(bundles[:count]))
    for name in heads:
        for module in _bundle(model, units, name)[:1]:
            module.set_modules_to_backward_prefetch(_flat(bundles[-count:][::-1]))


def _bundle(model: nn.Module, units: Sequence[Unit], outer: str) -> list[FSDPModule]:
    """The modules that carry the units of a layer, itself first."""
    modules = [model.get_submodule(unit.carrier) for unit in units if unit.outer == outer]
    return [module for module in modules if isinstance(module, FSDPModule)]


def _flat(bundles: Sequence[Sequence[FSDPModule]]) -> list[FSDPModule]:
    return [module for bundle in bundles for module in bundle]
