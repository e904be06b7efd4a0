"""What `plugins check` tests of one plugin, in a process of its own: `python -m xtuner_core.cli.plugin_checks NAME`.

The process answers with one JSON object on its standard output: problems and warnings, each a sentence.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import partial
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any

from omegaconf.errors import MissingMandatoryValue

from xtuner_core.capabilities import unknown_words
from xtuner_core.cli.plugin_commands import plugin_commands
from xtuner_core.config.layers import read_recipe
from xtuner_core.config.pick import pick_fields
from xtuner_core.config.schema import instantiate
from xtuner_core.discovery import OFFERS
from xtuner_core.errors import XTunerCoreError
from xtuner_core.host import Host
from xtuner_core.loading import load
from xtuner_core.records import SLOTS, UNPICKED_SLOTS, DeviceProvider
from xtuner_core.registry import Offer, reads


def check_plugin(name: str) -> list[str]:
    """Activate a plugin and load everything that its records name.

    :return: what is wrong, a sentence each.
    """
    try:
        host = Host()
        host.activate(name)
    except XTunerCoreError as error:
        return [_sentence(error)]
    return [problem for check in _CHECKS for problem in _attempt(partial(check, host, name))]


def _attempt(check: Callable[[], Iterator[str]]) -> list[str]:
    """One check's problems; one that ends early keeps those that it found."""
    found: list[str] = []
    try:
        for problem in check():
            found.append(problem)  # noqa: PERF402 (what was found before a failure is kept)
    except XTunerCoreError as error:
        found.append(_sentence(error))
    return found


def _sentence(error: XTunerCoreError) -> str:
    return f"{error.message}; {error.fix}" if error.fix else error.message


# ── the checks ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _index(host: Host, name: str) -> Iterator[str]:
    candidate, offers = host.active[name], host.registry.of_plugin(name)
    offered = {f"{offer.slot}/{offer.name}" for offer in offers if offer.slot not in UNPICKED_SLOTS}
    offered |= {f"hf/{kind}" for offer in offers for kind in getattr(offer.provider, "hf_model_types", ())}
    offered |= {f"file/{suffix[1:]}" for offer in offers for suffix in reads(offer)}
    own = [point for point in entry_points(group=OFFERS) if point.dist and point.dist.name == candidate.distribution]
    listed = {point.name for point in own if point.value == candidate.module}
    for key in sorted(offered - listed):
        yield f"offers {key}, which its distribution's offers index does not list"
    for key in sorted(listed - offered):
        yield f"is listed for {key} in its distribution's offers index, but does not offer it"
    modules = {item.module for item in host.discovery.candidates.values()}
    for point in own:
        if point.value not in modules:
            yield f"has {point.name} = {point.value!r} in its distribution's offers index, which is no plugin's module"


def _names(host: Host, name: str) -> Iterator[str]:
    for problem in host.registry.conflicts():
        if name in problem.plugins:
            yield str(problem)
    private = {word: text for info in host.infos.values() for word, text in info.capabilities.items()}
    for problem in unknown_words(host.registry.of_plugin(name), private):
        yield str(problem)
    for word in host.infos[name].capabilities:
        if not word.startswith(f"{name}."):
            yield f"declares the capability {word!r}, which does not begin with {name}."


def _settings(host: Host, name: str) -> Iterator[str]:
    cls = host.settings_class(name)
    if cls is not None:
        yield from _dataclass(cls, {}, "its settings")


def _configurations(host: Host, name: str) -> Iterator[str]:
    for offer in host.registry.of_plugin(name):
        cls = host.config_class(offer)
        label = f"{offer.slot} {offer.name!r}"
        if cls is None:
            if offer.provider.presets:
                yield f"{label} has presets, but no configuration"
            continue
        yield from _dataclass(cls, {}, label)
        for preset in offer.provider.presets:
            yield from _dataclass(cls, dict(preset.values), f"{label}, preset {preset.name!r},")


def _dataclass(cls: type, values: dict[str, Any], label: str) -> Iterator[str]:
    if not is_dataclass(cls):
        yield f"{label} has the configuration {cls.__name__}, which is no dataclass"
        return
    for field, (slot, _) in pick_fields(cls).items():
        if slot not in SLOTS:
            yield f"{label} picks {field} from {slot!r}, which is no slot"
    unknown = sorted(values.keys() - cls.__dataclass_fields__.keys())
    if unknown:
        yield f"{label} sets {', '.join(unknown)}, which {cls.__name__} does not have"
        return
    try:
        instantiate(cls, values)
    except MissingMandatoryValue:
        return  # a value that the user has to give
    except Exception as error:
        yield f"{label} cannot be made with its own values: {type(error).__name__}: {str(error).splitlines()[0]}"


def _factories(host: Host, name: str) -> Iterator[str]:
    for offer in host.registry.of_plugin(name):
        yield from _attempt(partial(_factory, offer))


def _factory(offer: Offer) -> Iterator[str]:
    reference = {"plugin": offer.plugin, "distribution": offer.distribution}
    factory: Any = load(offer.provider.factory, **reference)
    if offer.slot in UNPICKED_SLOTS:
        named = f"{getattr(factory, 'operator', '?')}.{getattr(factory, 'name', '?')}"
        if named != offer.name:
            yield f"{offer.slot} {offer.name!r} names {offer.provider.factory}, which is the implementation {named!r}"
    elif not callable(factory):
        yield f"{offer.slot} {offer.name!r} names the factory {offer.provider.factory}, which cannot be called"
    if isinstance(offer.provider, DeviceProvider):
        probe: Any = load(offer.provider.probe, **reference)
        try:
            int(probe().count)
        except Exception as error:
            yield f"{offer.slot} {offer.name!r}: its probe raises {type(error).__name__}: {error}"


def _recipes(host: Host, name: str) -> Iterator[str]:
    for recipe in host.infos[name].recipes:
        package, _, file = recipe.file.partition(":")
        try:
            text = files(package).joinpath(file).read_text(encoding="utf-8")
        except (OSError, ImportError) as error:
            yield f"recipe {recipe.name!r} names {recipe.file}, which cannot be read: {error}"
            continue
        read_recipe(text, f"recipe {recipe.name}")


def _commands(host: Host, name: str) -> Iterator[str]:
    from xtuner_core.cli.main import COMMANDS

    if any(candidate.name == name for candidate, _ in host.commands()):
        plugin_commands(host, COMMANDS)
    yield from ()


_CHECKS: tuple[Callable[[Host, str], Iterator[str]], ...] = (
    _index,
    _names,
    _settings,
    _configurations,
    _factories,
    _recipes,
    _commands,
)


def main(name: str) -> None:
    """Check a plugin and write the answer; what the plugin itself prints goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problems = check_plugin(name)
    told = [str(item.message) for item in caught if item.category.__module__.startswith("xtuner_core.")]
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        json.dump({"problems": problems, "warnings": told}, stream)


if __name__ == "__main__":
    main(sys.argv[1])
