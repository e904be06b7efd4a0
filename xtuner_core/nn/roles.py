"""Roles of modules and parameters in a built model: set, listed, selected.

A module carries `role`, a layer of the stack also `layer`; a module's bare parameters may have roles of their
own in `parameter_roles`. What carries none takes that of the nearest module around it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from difflib import get_close_matches
from typing import NamedTuple, TypeVar

from torch import nn

from xtuner_core.errors import ContractError, UnknownName
from xtuner_core.roles import matches

M = TypeVar("M", bound=nn.Module)


class RoledModule(NamedTuple):
    """A module that carries a role."""

    name: str
    """Qualified name; empty for the model itself."""
    module: nn.Module
    role: str
    layer: int | None
    """Index of the layer that it belongs to, or None outside the stack."""


def set_role(module: M, role: str) -> M:
    """Give a module its role, and return it."""
    object.__setattr__(module, "role", role)
    return module


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of that qualified name."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def iter_roles(model: nn.Module) -> Iterator[RoledModule]:
    """Every module that carries a role, a parent before its children."""
    for name, module, _, layer in _walk(model, "", None, None):
        own = getattr(module, "role", None)
        if own is not None:
            yield RoledModule(name, module, own, layer)


def parameter_role(model: nn.Module, *, aliases: bool = False) -> dict[str, tuple[str, int | None]]:
    """Role and layer of every parameter by qualified name; a shared one appears once, where it is first met.

    :param aliases: give a shared one under each of its names, with the role that it has there.
    :raises ContractError: neither the parameter nor any module around it has a role.
    """
    known = {name for name, _ in model.named_parameters(remove_duplicate=not aliases)}
    roles: dict[str, tuple[str, int | None]] = {}
    for prefix, module, role, layer in _walk(model, "", None, None):
        own = getattr(module, "parameter_roles", {})
        for leaf, _ in module.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}" if prefix else leaf
            if name not in known:
                continue
            found = own.get(leaf, role)
            if found is None:
                raise ContractError(f"parameter {name!r} has no role", fix="give the module that holds it one")
            roles[name] = (found, layer)
    return roles


def select(model: nn.Module, selector: str, layers: Container[int] | None = None) -> list[RoledModule]:
    """The modules whose role is `selector` or below it, a parent before its children.

    :param layers: keep those of these layers only.
    :raises UnknownName: nothing in the model matches.
    """
    roled = list(iter_roles(model))
    by_role = [item for item in roled if matches(item.role, selector)]
    if not by_role:
        present = sorted({item.role for item in roled})
        near = get_close_matches(selector, present, n=1)
        fix = f"write {near[0]!r}" if near else f"choose among {', '.join(present)}"
        raise UnknownName(f"no module of the model has the role {selector!r}", fix=fix)
    chosen = [item for item in by_role if layers is None or (item.layer is not None and item.layer in layers)]
    if not chosen:
        present_layers = sorted({item.layer for item in by_role if item.layer is not None})
        raise UnknownName(
            f"no module of role {selector!r} is in the layers {layers}",
            fix=f"it is in the layers {present_layers}",
        )
    return chosen


def _walk(
    module: nn.Module, name: str, role: str | None, layer: int | None
) -> Iterator[tuple[str, nn.Module, str | None, int | None]]:
    role = getattr(module, "role", role)
    layer = getattr(module, "layer", layer)
    yield name, module, role, layer
    for leaf, child in module.named_children():
        yield from _walk(child, f"{name}.{leaf}" if name else leaf, role, layer)
