"""Which offer each slot of a run takes. Picks are told from values here, before OmegaConf sees either.

Layers come from weakest to strongest: the default recipe, the user's recipe, the command line. A pick in a stronger
layer replaces a weaker one whole, its values included; values beside the winning pick stay, whatever their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xtuner_core.config.layers import Assignment, Key, Layer, flatten
from xtuner_core.config.lookup import Found, Lookup
from xtuner_core.config.naming import Naming
from xtuner_core.config.pick import pick_fields
from xtuner_core.errors import XTunerCoreError
from xtuner_core.records import MANY_SLOTS, SINGLE_SLOTS, Problem
from xtuner_core.registry import Offer

AUTO = ("device", "precision")
"""Slots for which `auto` is a pick, and what they take where nothing is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a run takes for one key."""

    path: Key
    slot: str
    offer: Offer
    preset: str | None = None
    source: Path | None = None
    """Folder of the checkpoint, for `model=PATH`."""
    origin: str

    @property
    def key(self) -> str:
        """The key as a person writes it."""
        return ".".join(self.path)


@dataclass(slots=True)
class Layers:
    """The assignments of a run, weakest layer first; picks are taken out as they are made."""

    default: Layer = field(default_factory=list)
    recipe: Layer = field(default_factory=list)
    command: Layer = field(default_factory=list)

    def __iter__(self) -> Iterator[Layer]:
        return iter((self.default, self.recipe, self.command))

    def below(self, key: Key) -> list[Layer]:
        """Assignments to the key and everything below it, layer by layer."""
        return [[a for a in layer if a.path[: len(key)] == key] for layer in self]

    def drop(self, unwanted: Sequence[Assignment]) -> None:
        """Take assignments out."""
        gone = {id(a) for a in unwanted}
        for layer in self:
            layer[:] = [a for a in layer if id(a) not in gone]


class Picker:
    """Makes every pick of a run.

    :param layers: what was written; the picks are taken out of it.
    :param naming: what the named plugins fill.
    :param lookup: finds offers, activating the plugins that own them.
    """

    def __init__(self, layers: Layers, naming: Naming, lookup: Lookup) -> None:
        self.layers = layers
        self.naming = naming
        self.lookup = lookup
        self.choices: dict[str, Choice] = {}
        self.problems: list[Problem] = []
        self.presets: Layer = []
        """Values that the picks bring along, weaker than every layer."""

    def pick_all(self) -> None:
        """Fill `choices`; what cannot be picked becomes a problem."""
        for slot in ("algorithm", "device", *SINGLE_SLOTS):
            if slot not in self.choices:
                self._single((slot,), slot, self._fallback(slot))
        for slot in MANY_SLOTS:
            self._many(slot)

    def _fallback(self, slot: str) -> str | None:
        if slot == "loss" and "algorithm" in self.choices:
            return str(self.choices["algorithm"].offer.provider.loss)  # type: ignore[attr-defined]
        return "auto" if slot in AUTO else None

    def _single(self, key: Key, slot: str, fallback: str | None) -> None:
        found = self._written(key)
        explicit = any(a is not None for a in found[1:])
        filled = self.naming.fills(slot) if len(key) == 1 and not explicit else None
        if filled is not None:
            self.layers.drop(self.layers.below(key)[0])
            self._take(key, slot, filled, f"--plugins {filled.plugin}")
        else:
            winner = next((a for a in reversed(found) if a is not None), None)
            self._replace_whole(key, found)
            spec, origin = (fallback, "default") if winner is None else (winner.value, winner.origin)
            if spec is not None:
                self._take(key, slot, spec, origin)

    def _written(self, key: Key) -> list[Assignment | None]:
        """The last pick that each layer makes for a key."""
        return [next((a for a in reversed(layer) if _is_pick(a, key)), None) for layer in self.layers.below(key)]

    def _replace_whole(self, key: Key, found: Sequence[Assignment | None]) -> None:
        """Drop the values that stand beside a pick that a stronger layer replaced, and the picks themselves."""
        layers = self.layers.below(key)
        written = [a.value if a is not None else None for a in found]
        top = max((n for n, a in enumerate(found) if a is not None), default=0)
        for number, layer in enumerate(layers):
            replaced = number < top and written[number] != written[top]
            self.layers.drop([a for a in layer if replaced or _is_pick(a, key) or a.path == key])

    def _take(self, key: Key, slot: str, spec: Any, origin: str) -> None:
        try:
            found = self._find(key, slot, spec)
        except XTunerCoreError as error:
            plugins = (error.plugin,) if error.plugin else ()
            message = f"{'.'.join(key)}={spec} ({origin}): {error.message}"
            self.problems.append(
                Problem(message=message, fix=error.fix, code="pick", key=".".join(key), plugins=plugins)
            )
            return
        choice = Choice(path=key, slot=slot, offer=found.offer, preset=found.preset, source=found.source, origin=origin)
        self.choices[choice.key] = choice
        self.presets += flatten(found.values, key, found.label) if found.values else []
        config = self.lookup.host.config_class(found.offer)
        for name, (inner, default) in pick_fields(config).items() if config else ():
            self._single((*key, name), inner, default)

    def _find(self, key: Key, slot: str, spec: Any) -> Found:
        if isinstance(spec, Offer):
            return self.lookup.start_small(spec)
        if spec == "auto" and slot in AUTO:
            return self.lookup.automatic(slot, self.choices)
        return self.lookup.find(slot, spec)

    def _many(self, slot: str) -> None:
        layers = self.layers.below((slot,))
        for number, layer in enumerate(layers):
            whole = [a for a in layer if a.path == (slot,) and a.value != {}]
            if whole:
                self.layers.drop([a for weaker in layers[:number] for a in weaker] + whole)
                if whole[-1].value is not None:
                    self._take_entry(slot, str(whole[-1].value), whole[-1])
        entries: dict[str, Assignment] = {}
        for layer in self.layers.below((slot,)):
            for assignment in layer:
                if len(assignment.path) > 1:
                    entries[assignment.path[1]] = assignment
        for name, assignment in entries.items():
            if f"{slot}.{name}" not in self.choices:
                self._entry(slot, name, assignment)

    def _entry(self, slot: str, name: str, last: Assignment) -> None:
        key = (slot, name)
        if last.path == key and last.value is None:
            self.layers.drop([a for layer in self.layers.below(key) for a in layer])
            return
        self._single(key, slot, name)

    def _take_entry(self, slot: str, spec: str, assignment: Assignment) -> None:
        self._take((slot, spec.partition(":")[0]), slot, spec, assignment.origin)


def _is_pick(assignment: Assignment, key: Key) -> bool:
    at_key = assignment.path == key and not (assignment.value == {} or isinstance(assignment.value, list))
    return at_key or assignment.path == (*key, "name")
