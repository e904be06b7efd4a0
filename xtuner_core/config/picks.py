"""Which offer each slot of a run takes. Picks are told from values here, before OmegaConf sees either.

Layers come from weakest to strongest: what picks bring along, the default recipe, the user's recipe, the command
line. A pick in a stronger layer replaces a weaker one whole, its values included; values beside the winning pick stay,
whatever their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xtuner_core.config.layers import Assignment, Key, Layer, flatten
from xtuner_core.config.lookup import Found, Lookup
from xtuner_core.config.naming import Naming, contested
from xtuner_core.config.pick import pick_fields
from xtuner_core.errors import PluginError, XTunerCoreError
from xtuner_core.records import INHERITED_SLOTS, MANY_SLOTS, SINGLE_SLOTS, Problem
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

    presets: Layer = field(default_factory=list)
    """What picks bring along: a preset's values, a checkpoint's; picks of nested slots among them."""
    default: Layer = field(default_factory=list)
    recipe: Layer = field(default_factory=list)
    command: Layer = field(default_factory=list)

    def __iter__(self) -> Iterator[Layer]:
        return iter((self.presets, self.default, self.recipe, self.command))

    @property
    def users(self) -> tuple[Layer, Layer]:
        """What the user wrote."""
        return self.recipe, self.command

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
        self.waiting: set[str] = set()
        """Slots that stay empty because another one does."""

    def pick_all(self) -> None:
        """Fill `choices`; what cannot be picked becomes a problem."""
        for slot in dict.fromkeys(("algorithm", "device", *SINGLE_SLOTS)):
            self._single((slot,), slot, self._fallback(slot))
        for slot in MANY_SLOTS:
            self._many(slot)

    def _fallback(self, slot: str) -> str | None:
        if slot == "loss" and "algorithm" in self.choices:
            return str(self.choices["algorithm"].offer.provider.loss)  # type: ignore[attr-defined]
        if slot == "launcher":
            return self.lookup.started_by()
        return "auto" if slot in AUTO else None

    def _single(self, key: Key, slot: str, fallback: str | None) -> None:
        found = self._written(key)
        named = self._named(key, slot)
        winner = next((a for a in reversed(found) if a is not None), None)
        if named and not (len(named) == 1 and winner is not None and _is_of(winner, named[0])):
            self._drop_default(key)
            self._take_named(key, slot, named)
            return
        self._replace_whole(key, found)
        spec, origin = (fallback, "default") if winner is None else (winner.value, winner.origin)
        if spec is None:
            self.waiting |= {slot} if slot == "loss" and winner is None else set()
        else:
            self._take(key, slot, spec, origin)

    # ── naming is choosing ─────────────────────────────────────────────────────────────────────────────────────

    def _named(self, key: Key, slot: str) -> list[Offer]:
        """Offers of named plugins that would fill a slot of which the user picked nothing."""
        explicit = any(is_pick(a, key) for layer in self.layers.users for a in layer)
        return [] if explicit or key != (slot,) else self.naming.candidates(slot)

    def _drop_default(self, key: Key) -> None:
        self.layers.drop([a for a in self.layers.default if a.path[: len(key)] == key])

    def _take_named(self, key: Key, slot: str, named: Sequence[Offer]) -> None:
        if len(named) == 1:
            self._take(key, slot, named[0], f"--plugins {named[0].plugin}")
            return
        self.layers.drop([a for layer in self.layers.below(key) for a in layer])
        self.problems.append(contested(slot, named))

    # ── what was written ───────────────────────────────────────────────────────────────────────────────────────

    def _written(self, key: Key) -> list[Assignment | None]:
        """The last pick that each layer makes for a key."""
        return [next((a for a in reversed(layer) if is_pick(a, key)), None) for layer in self.layers.below(key)]

    def _replace_whole(self, key: Key, found: Sequence[Assignment | None]) -> None:
        """Drop the values that belong to a pick that a stronger layer replaced, and the picks themselves.

        A value belongs to the pick of its own layer, else to the nearest weaker one; to the winner where there
        is neither.
        """
        specs: list[Any] = []
        for pick in found:
            specs.append(pick.value if pick is not None else specs[-1] if specs else _NOTHING)
        for layer, spec in zip(self.layers.below(key), specs, strict=True):
            replaced = spec is not _NOTHING and spec != specs[-1]
            self.layers.drop([a for a in layer if replaced or is_pick(a, key) or a.path == key])

    def _take(self, key: Key, slot: str, spec: Any, origin: str) -> None:
        if spec == "auto" and slot == "precision" and "device" not in self.choices:
            self.waiting.add(slot)
            return
        try:
            found = self._find(slot, spec)
            config = self.lookup.host.config_class(found.offer)
        except XTunerCoreError as error:
            self.problems.append(_refused(key, spec, origin, error))
            self.layers.drop([a for layer in self.layers.below(key) for a in layer])
            return
        choice = Choice(path=key, slot=slot, offer=found.offer, preset=found.preset, source=found.source, origin=origin)
        self.choices[choice.key] = choice
        self.layers.presets += flatten(found.values, key, found.label) if found.values else []
        for name, (inner, default) in pick_fields(config).items() if config else ():
            self._single((*key, name), inner, self._inherited((*key, name), inner, default))

    def _inherited(self, key: Key, slot: str, default: str | None) -> str | None:
        """What a nested pick is where its owner names none: the run's own of a slot that is there to be taken from."""
        above = self.choices.get(slot) if slot in INHERITED_SLOTS else None
        if above is None or any(pick is not None for pick in self._written(key)):
            return default
        values = [a for layer in self.layers.below((slot,)) for a in layer]
        self.layers.presets += [Assignment((*key, *a.path[1:]), a.value, a.origin) for a in values]
        return above.offer.name

    def _find(self, slot: str, spec: Any) -> Found:
        if isinstance(spec, Offer):
            return self.lookup.start_small(spec)
        if spec == "auto" and slot in AUTO:
            return self.lookup.automatic(slot, self.choices)
        return self.lookup.find(slot, spec)

    # ── slots that take several ────────────────────────────────────────────────────────────────────────────────

    def _many(self, slot: str) -> None:
        self._spell_out(slot)
        entries: dict[str, Assignment] = {}
        for layer in self.layers.below((slot,)):
            entries |= {assignment.path[1]: assignment for assignment in layer}
        for name, last in entries.items():
            key = (slot, name)
            if last.path == key and last.value is None:
                self.layers.drop([a for layer in self.layers.below(key) for a in layer])
            else:
                self._single(key, slot, name)

    def _spell_out(self, slot: str) -> None:
        """Write `slot=NAME` as the one entry that it is short for; it replaces the entries of weaker layers."""
        for number, layer in enumerate(self.layers):
            whole = [a for a in layer if a.path == (slot,)]
            self.layers.drop(whole)
            if not whole or whole[-1].value == {}:
                continue
            weaker = self.layers.below((slot,))[:number]
            self.layers.drop([a for entries in weaker for a in entries])
            spec = whole[-1].value
            if isinstance(spec, str):
                layer.append(Assignment((slot, self.lookup.entry(slot, spec)), spec, whole[-1].origin))
            elif spec is not None:
                self.problems.append(_no_entry(slot, whole[-1]))


_NOTHING = object()


def _is_of(assignment: Assignment, offer: Offer) -> bool:
    """Whether a pick that was written means this offer already."""
    return isinstance(assignment.value, str) and assignment.value.partition(":")[0] == offer.name


def is_pick(assignment: Assignment, key: Key) -> bool:
    """Whether an assignment picks something for a key, rather than giving it values."""
    return (assignment.path == key and assignment.value != {}) or assignment.path == (*key, "name")


def _refused(key: Key, spec: Any, origin: str, error: XTunerCoreError) -> Problem:
    what = spec.name if isinstance(spec, Offer) else spec
    return Problem(
        message=f"{'.'.join(key)}={what} ({origin}): {error.message}",
        fix=error.fix,
        code="plugin" if isinstance(error, PluginError) else "pick",
        key=".".join(key),
        plugins=(error.plugin,) if error.plugin else (),
    )


def _no_entry(slot: str, written: Assignment) -> Problem:
    message = f"{slot} = {written.value!r} ({written.origin}) names no {slot}"
    return Problem(message=message, fix=f"write {slot}.NAME=NAME for each", code="pick", key=slot)
