"""What is gathered together: the layers of a model, by role; within them the experts and what has a dtype of its own.

A unit hangs on a module, whose forward pass is when its parameters are there; it need not hold all of that module's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from xtuner_core.errors import ContractError
from xtuner_core.nn.roles import iter_roles, parameter_role
from xtuner_core.roles import matches

ROOT = ""
"""Name of the model itself; its unit stays whole between forward and backward."""
DENSE, EXPERT = "dense", "expert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Parameters that are gathered, and whose gradients are reduced, in one go."""

    carrier: str
    """Name of the module that it hangs on."""
    outer: str
    """Name of the layer or head that it belongs to, its carrier or around it; `ROOT` outside these."""
    view: str
    """`dense` or `expert`: over whose ranks it is spread."""
    dtype: torch.dtype | None
    """What its parameters are computed in, which do not follow the precision policy; None where they do."""
    parameters: Mapping[str, str]
    """Qualified names, each with the view that it belongs to."""


def plan_units(model: nn.Module, followers: Container[str], *, experts_apart: bool) -> list[Unit]:
    """Divide a model's parameters into units, those of a module before those inside it; the model's own comes first.

    A parameter that several layers share belongs to the model's. Experts that lie apart hang on the block around them,
    which every rank enters equally often, however many rounds its experts take. Parameters of no dims are left out.

    :param followers: parameters that follow the precision policy.
    :param experts_apart: whether experts are spread over other ranks than the rest.
    :raises ContractError: one module would have to carry two units.
    """
    homes, outers = _homes(model), _outers(model)
    held: dict[tuple[str, str, str, torch.dtype | None], dict[str, str]] = defaultdict(dict)
    held[ROOT, ROOT, DENSE, None] = {}
    for name, (role, _) in parameter_role(model).items():
        parameter = model.get_parameter(name)
        if not parameter.dim():
            continue
        outer, shared = _outer(model, homes[parameter], outers)
        view = EXPERT if matches(role, "moe.experts") else DENSE
        apart, follows = view == EXPERT and experts_apart, name in followers
        home = name.rpartition(".")[0]
        carrier = outer if shared or (follows and not apart) else _block(model, home) if apart else home
        held[carrier, outer, view if apart else DENSE, None if follows else parameter.dtype][name] = view
    found = [
        Unit(carrier=carrier, outer=outer, view=view, dtype=dtype, parameters=names)
        for (carrier, outer, view, dtype), names in held.items()
    ]
    _refuse_two(found)
    return sorted(found, key=lambda unit: unit.carrier.count(".") + bool(unit.carrier))


def layer_names(model: nn.Module) -> list[str]:
    """Names of the layers, in the order in which they stand in the model."""
    return _with_role(model, "layer")


def head_names(model: nn.Module) -> list[str]:
    """Names of the heads, which are called after the model's forward pass; the backward pass begins with them."""
    return _with_role(model, "head")


def _with_role(model: nn.Module, role: str) -> list[str]:
    return [item.name for item in iter_roles(model) if matches(item.role, role)]


def _outers(model: nn.Module) -> frozenset[str]:
    """Modules that carry a unit of all that is in them: layers, heads (called on their own), the model."""
    return frozenset([ROOT, *layer_names(model), *head_names(model)])


def _homes(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """The modules that each parameter is found in."""
    homes: dict[nn.Parameter, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        homes[parameter].append(name.rpartition(".")[0])
    return homes


def _outer(model: nn.Module, homes: Iterable[str], outers: frozenset[str]) -> tuple[str, bool]:
    """The layer or head of a parameter, and whether several share it."""
    around = {id(model.get_submodule(name)): name for name in (_nearest(home, outers) for home in homes)}
    return (ROOT, True) if len(around) > 1 else (next(iter(around.values())), False)


def _nearest(name: str, among: Container[str]) -> str:
    while name not in among:
        name = name.rpartition(".")[0]
    return name


def _block(model: nn.Module, home: str) -> str:
    """The mixture around an experts' module; the module itself where there is none."""
    name = home
    while name:
        if getattr(model.get_submodule(name), "role", None) == "moe":
            return name
        name = name.rpartition(".")[0]
    return home


def _refuse_two(units: Iterable[Unit]) -> None:
    for carrier, count in Counter(unit.carrier for unit in units).items():
        if count > 1:
            raise ContractError(
                f"the parameters of {carrier or 'the model itself'} differ in dtype or lie over different ranks, and "
                "FSDP gathers what hangs on one module in one go",
                fix="put those that do not follow the precision policy into a module of their own",
                plugin="fsdp",
            )
