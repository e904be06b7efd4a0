"""The index of what the active plugins offer: lookup, conflicts, who offers this?"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from xtuner_core.discovery import Candidate
from xtuner_core.errors import ContractError
from xtuner_core.records import (
    SLOTS,
    AlgorithmProvider,
    DatasetProvider,
    DeviceProvider,
    LauncherProvider,
    LossProvider,
    ModelProvider,
    ParallelismProvider,
    Preset,
    Problem,
    Provider,
)

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)?")
_RECORDS: dict[str, type[Provider[Any]]] = {
    "model": ModelProvider,
    "parallelism": ParallelismProvider,
    "device": DeviceProvider,
    "loss": LossProvider,
    "algorithm": AlgorithmProvider,
    "launcher": LauncherProvider,
}
_SUFFIX = re.compile(r"(\.[a-z0-9_-]+)+")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider and the plugin that it comes from."""

    provider: Provider[Any]
    plugin: str
    distribution: str
    version: str

    @property
    def slot(self) -> str:
        """Slot of the provider."""
        return self.provider.slot

    @property
    def name(self) -> str:
        """Name of the provider."""
        return self.provider.name

    def __str__(self) -> str:
        return f"{self.slot} {self.name!r} of plugin {self.plugin!r} ({self.distribution} {self.version})"


def check_provider(provider: object, candidate: Candidate) -> Provider[Any]:
    """The record, if it is one.

    :param candidate: the plugin that offers it.
    :raises ContractError: it is no provider, or a field of it has a wrong form.
    """
    if not isinstance(provider, Provider):
        raise _broken(candidate, f"offers {provider!r}, which is no Provider")
    record = _RECORDS.get(provider.slot, Provider)
    suffixes = provider.suffixes if isinstance(provider, DatasetProvider) else ()
    faults = {
        f"record is a {type(provider).__name__}, no {record.__name__}": not isinstance(provider, record),
        f"slot {provider.slot!r} is not known": provider.slot not in SLOTS,
        f"name {provider.name!r} is not lower snake case": not _NAME.fullmatch(provider.name),
        f"factory {provider.factory!r} is not 'package.module:function'": not _REFERENCE.fullmatch(provider.factory),
        f"config {provider.config!r} is not 'package.module:Class'": isinstance(provider.config, str)
        and not _REFERENCE.fullmatch(provider.config),
        f"suffixes {suffixes!r} are not of the form '.jsonl'": not all(map(_SUFFIX.fullmatch, suffixes)),
    }
    for fault, found in faults.items():
        if found:
            raise _broken(candidate, f"offers {provider.slot} {provider.name!r}, but its {fault}")
    return provider


def _broken(candidate: Candidate, what: str) -> ContractError:
    fix = f"update or uninstall {candidate.distribution}"
    return ContractError(f"{candidate} {what}", fix=fix, plugin=candidate.name)


def reads(offer: Offer) -> tuple[str, ...]:
    """Suffixes of the files that an offer reads; none where it is no dataset, or one of another kind."""
    return offer.provider.suffixes if isinstance(offer.provider, DatasetProvider) else ()


class Registry:
    """Offers by slot and name, in the order of activation."""

    def __init__(self) -> None:
        self._offers: list[Offer] = []

    def add(self, offers: Iterable[Offer]) -> None:
        """Index a plugin's offers."""
        self._offers.extend(offers)

    def drop(self, plugin: str) -> None:
        """Forget a plugin's offers."""
        self._offers = [offer for offer in self._offers if offer.plugin != plugin]

    def of_slot(self, slot: str) -> list[Offer]:
        """Every offer of a slot."""
        return [offer for offer in self._offers if offer.slot == slot]

    def of_plugin(self, plugin: str) -> list[Offer]:
        """Every offer of a plugin."""
        return [offer for offer in self._offers if offer.plugin == plugin]

    def find(self, slot: str, name: str) -> Offer | None:
        """The offer of this name, or None."""
        return self._first(lambda offer: offer.slot == slot and offer.name == name)

    def find_alias(self, slot: str, alias: str) -> tuple[Offer, Preset] | None:
        """The offer and preset that a preset's alias stands for, or None."""
        pairs = ((offer, preset) for offer in self.of_slot(slot) for preset in offer.provider.presets)
        return next((pair for pair in pairs if pair[1].alias == alias), None)

    def find_model_type(self, model_type: str) -> Offer | None:
        """The model family that reads this Hugging Face `model_type`, or None."""
        return self._first(lambda offer: model_type in getattr(offer.provider, "hf_model_types", ()))

    def readers(self, suffix: str) -> list[Offer]:
        """The datasets that read files ending in this."""
        return [offer for offer in self.of_slot("dataset") if suffix in reads(offer)]

    def _first(self, wanted: Callable[[Offer], bool]) -> Offer | None:
        return next((offer for offer in self._offers if wanted(offer)), None)

    def conflicts(self) -> list[Problem]:
        """Offers of one name in one slot, presets of one alias, readers of one `model_type`."""
        groups: dict[str, list[Offer]] = defaultdict(list)
        for offer in self._offers:
            groups[f"{offer.slot} {offer.name!r}"].append(offer)
            for preset in offer.provider.presets:
                if preset.alias:
                    groups[f"{offer.slot} {preset.alias!r}"].append(offer)
            for model_type in getattr(offer.provider, "hf_model_types", ()):
                groups[f"reading model_type {model_type!r}"].append(offer)
        return [_conflict(what, offers) for what, offers in groups.items() if len(offers) > 1]


def _conflict(what: str, offers: list[Offer]) -> Problem:
    plugins = tuple(offer.plugin for offer in offers)
    sources = " and ".join(f"plugin {o.plugin!r} ({o.distribution} {o.version})" for o in offers)
    fix = f"leave one of them out of --plugins, or uninstall {offers[-1].distribution}"
    return Problem(message=f"{what} is offered by {sources}", fix=fix, code="conflict", plugins=plugins)
