"""Where a run's values start: the user's recipe, a recipe that a plugin ships, the algorithm's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from xtuner_core.config.layers import (
    Assignment,
    Layer,
    flatten,
    listed_plugins,
    parse_overrides,
    read_recipe,
    read_recipe_file,
)
from xtuner_core.config.lookup import Lookup
from xtuner_core.config.naming import Naming
from xtuner_core.config.picks import Layers
from xtuner_core.errors import ConfigError, ContractError
from xtuner_core.host import Host
from xtuner_core.records import SLOTS, AlgorithmProvider
from xtuner_core.registry import Offer

OWN_SLOTS = ("model", "dataset", "algorithm")
"""Slots that a user's recipe decides by itself; it leaves the others to the algorithm's recipe, slot by slot."""


def read_layers(
    host: Host, named: Sequence[str], recipe: str | Path | Mapping[str, Any] | None, overrides: Any
) -> Layers:
    """Read everything that was written, and activate the plugins that it lists.

    :param named: plugins of `--plugins`, active.
    :param overrides: `key=value` lines or a mapping.
    :raises XTunerCoreError: a recipe or an override cannot be read, or a listed plugin is broken.
    """
    layers = Layers()
    layers.command = flatten(overrides, (), "call") if isinstance(overrides, Mapping) else parse_overrides(overrides)
    if recipe is not None:
        layers.recipe = _recipe(host, recipe)
    for layer in (layers.recipe, layers.command):
        host.activate(*listed_plugins(layer))
    layers.default = _default(host, named, layers, alone=recipe is None)
    host.activate(*listed_plugins(layers.default))
    return layers


def _recipe(host: Host, recipe: str | Path | Mapping[str, Any]) -> Layer:
    if isinstance(recipe, Mapping):
        return flatten(recipe, (), "recipe")
    shipped = host.recipes()
    if str(recipe) in shipped:
        return _shipped(host, str(recipe))
    if not Path(recipe).suffix:
        names = ", ".join(sorted(shipped))
        raise ConfigError(f"no recipe {str(recipe)!r}", fix=f"write the path of a .yaml file, or one of {names}")
    return read_recipe_file(Path(recipe))


def _shipped(host: Host, name: str) -> Layer:
    plugin, recipe = host.recipes()[name]
    package, _, file = recipe.file.partition(":")
    try:
        text = files(package).joinpath(file).read_text(encoding="utf-8")
    except (OSError, ImportError, ValueError) as error:
        candidate = host.active[plugin]
        message = f"{candidate} has no recipe {name!r} at {recipe.file}: {error}"
        fix = f"update or uninstall {candidate.distribution}"
        raise ContractError(message, fix=fix, plugin=plugin) from error
    return read_recipe(text, f"recipe {name}")


def _default(host: Host, named: Sequence[str], layers: Layers, *, alone: bool) -> Layer:
    """The algorithm's recipe; beside a recipe of the user's, only what that leaves to it."""
    name = _algorithm_recipe(host, named, layers, alone=alone)
    if name is None and not alone:
        return []
    default = _shipped(host, name or _default_recipe(host))
    return default if alone else [a for a in default if a.path[0] in SLOTS and a.path[0] not in OWN_SLOTS]


def _algorithm_recipe(host: Host, named: Sequence[str], layers: Layers, *, alone: bool) -> str | None:
    """Recipe of the algorithm that the user names, explicitly or by its plugin: its demonstration's, or its own."""
    key = (("algorithm",), ("algorithm", "name"))
    written = [a.value for layer in (layers.recipe, layers.command) for a in layer if a.path in key]
    offer = Lookup(host).find("algorithm", written[-1]).offer if written else Naming(named, host).fills("algorithm")
    if alone and (offer is None or not (_provider(offer).recipe or _provider(offer).demo)):
        offer = _default_algorithm(host)
    if offer is None:
        return None
    recipe = _provider(offer).recipe
    if alone and not any(map(_brings, layers.command)):
        recipe = _provider(offer).demo or recipe
    if recipe is not None and recipe not in host.recipes():
        message = f"{offer} starts from the recipe {recipe!r}, which its plugin does not ship"
        raise ContractError(message, fix=f"update or uninstall {offer.distribution}", plugin=offer.plugin)
    return recipe


def _default_algorithm(host: Host) -> Offer | None:
    """The algorithm of which the default recipe is the demonstration."""
    shown = _default_recipe(host)
    return next((offer for offer in host.registry.of_slot("algorithm") if _provider(offer).demo == shown), None)


def _provider(offer: Offer) -> AlgorithmProvider[Any]:
    assert isinstance(offer.provider, AlgorithmProvider)
    return offer.provider


def _default_recipe(host: Host) -> str:
    return next(recipe.name for _, recipe in host.recipes().values() if recipe.default)


def _brings(written: Assignment) -> bool:
    """Whether the user brings a model, weights or data; a value of what the demonstration picks is neither."""
    slot, *rest = written.path
    return {
        "init": not rest,
        "model": rest in ([], ["name"]),
        "dataset": len(rest) < 2 or rest[1:] == ["name"],
    }.get(slot, False)
