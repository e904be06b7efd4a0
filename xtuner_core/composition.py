"""From what a person writes to a frozen plan: activate, pick, assemble the schema, patch, validate, negotiate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from xtuner_core import __version__
from xtuner_core.capabilities import CAPABILITIES, negotiate, unknown_words
from xtuner_core.claims import world_problems
from xtuner_core.config.initial import place_init
from xtuner_core.config.layers import PLUGINS, Layer
from xtuner_core.config.lookup import Lookup
from xtuner_core.config.naming import Naming
from xtuner_core.config.patches import apply_patches
from xtuner_core.config.picks import Choice, Picker
from xtuner_core.config.recipes import read_layers
from xtuner_core.config.schema import Schema, instantiate, leaf_origins, section_of
from xtuner_core.errors import ComposeError, XTunerCoreError
from xtuner_core.host import Host
from xtuner_core.inventory import environment, planned_plugins
from xtuner_core.loading import load
from xtuner_core.plan import Plan, PlannedPatch, PlannedPick
from xtuner_core.records import MANY_SLOTS, SLOTS, LauncherProvider, Problem
from xtuner_core.registry import Offer
from xtuner_core.stages import stage_problems

REQUIRED = ("model", "device", "algorithm", "loss", "optimizer", "precision", "schedule")
"""Slots without which no run can be wired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """A plan, or the problems that stand in its way."""

    host: Host
    plan: Plan | None = None
    problems: tuple[Problem, ...] = ()
    error: XTunerCoreError | None = None
    """The failure that ended composing early (an unreadable recipe, a broken plugin), also among the problems."""

    def require(self) -> Plan:
        """The plan.

        :raises XTunerCoreError: there are problems.
        """
        if self.error is not None:
            raise self.error
        if self.plan is None:
            raise ComposeError(self.problems)
        return self.plan


def compose(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *,
    plugins: Sequence[str] = (),
    overrides: Sequence[str] | Mapping[str, Any] = (),
    host: Host | None = None,
) -> Composition:
    """Wire a run without starting it. Imports no torch.

    :param recipe: path of a YAML file, the name of a recipe that a plugin ships, or a mapping; None takes the
        recipe of the algorithm that is named, pre-training's otherwise: its demonstration where `overrides` bring no
        model, `init` or dataset.
    :param plugins: plugins that are named: each fills the slots of which it has one offer.
    :param overrides: `key=value` lines, or a mapping; they count more than everything else.
    :param host: the plugins to choose from; None makes one of what is installed.
    :raises XTunerCoreError: only where no host could be made; every other failure is data in the result.
    """
    host = Host() if host is None else host
    try:
        return _Composer(host, plugins).compose(recipe, overrides)
    except ComposeError as error:
        return Composition(host=host, problems=error.problems, error=error)
    except XTunerCoreError as error:
        return Composition(host=host, problems=(_as_problem(error),), error=error)


def _slot(problem: Problem) -> str:
    return (problem.key or "").partition(".")[0]


def _as_problem(error: XTunerCoreError) -> Problem:
    plugins = (error.plugin,) if error.plugin else ()
    return Problem(message=error.message, fix=error.fix, code="error", plugins=plugins)


@dataclass(slots=True)
class _Composer:
    host: Host
    named: Sequence[str]
    problems: list[Problem] = field(default_factory=list)

    def compose(self, recipe: Any, overrides: Any) -> Composition:
        host = self.host
        self._activate_named()
        layers = read_layers(host, self.named, recipe, overrides)
        naming, lookup = Naming(self.named, host), Lookup(host)
        place_init(layers, naming)
        picker = Picker(layers, naming, lookup)
        picker.pick_all()
        choices = picker.choices
        self.problems += picker.problems + self._missing(picker)
        schema = self._schema(choices)
        for layer in (layers.presets, layers.default, layers.recipe):
            self._assign(schema, layer)
        patches, refused = apply_patches(host, schema, choices, layers.command)
        self.problems += refused
        self._assign(schema, layers.command)
        config, wrong = schema.resolve()
        self.problems += wrong + self._wiring_problems(choices)
        self.problems += [] if self.problems else self._rank_problems(choices, config)
        excused = {plugin for problem in self.problems for plugin in problem.plugins}
        excused |= {offer.plugin for problem in picker.problems for offer in host.registry.of_slot(_slot(problem))}
        self.problems += naming.unused((choice.offer for choice in choices.values()), excused)
        if self.problems:
            return Composition(host=host, problems=tuple(self.problems))
        plan = self._freeze(choices, config, schema.origins, patches, lookup.notes)
        objections = tuple(host.check(plan, None))
        return Composition(host=host, plan=None if objections else plan, problems=objections)

    def _activate_named(self) -> None:
        """Activate what is named; several broken plugins are told at once."""
        errors: list[XTunerCoreError] = []
        for name in self.named:
            try:
                self.host.activate(name)
            except XTunerCoreError as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ComposeError([_as_problem(error) for error in errors])

    # ── checking ───────────────────────────────────────────────────────────────────────────────────────────────

    def _missing(self, picker: Picker) -> list[Problem]:
        excused = {problem.key for problem in picker.problems} | picker.waiting
        absent = [slot for slot in REQUIRED if slot not in picker.choices and slot not in excused]
        return [self._nothing_for(slot) for slot in absent]

    def _nothing_for(self, slot: str) -> Problem:
        names = {o.name for o in self.host.registry.of_slot(slot)} | self.host.discovery.listed(slot).keys()
        fix = f"write {slot}={'|'.join(sorted(names))}" if names else f"install a plugin that offers a {slot}"
        return Problem(message=f"no {slot} is chosen", fix=fix, code="missing", key=slot)

    def _schema(self, choices: Mapping[str, Choice]) -> Schema:
        sections = {c.path: (self.host.config_class(c.offer), str(c.offer)) for c in choices.values()}
        for slot in MANY_SLOTS:
            if any(key.startswith(f"{slot}.") for key in choices):
                sections.setdefault((slot,), (None, f"slot {slot!r}"))
        for plugin in self.host.active:
            settings = self.host.settings_class(plugin)
            if settings is not None:
                sections[(PLUGINS, plugin)] = (settings, f"plugin {plugin!r}")
        return Schema(sections, self.host.discovery.candidates.keys() - self.host.active.keys())

    def _assign(self, schema: Schema, layer: Layer) -> None:
        self.problems += [p for p in map(schema.assign, layer) if p is not None]

    def _wiring_problems(self, choices: Mapping[str, Choice]) -> list[Problem]:
        registry = self.host.registry
        private = {word: text for info in self.host.infos.values() for word, text in info.capabilities.items()}
        offers = [offer for slot in SLOTS for offer in registry.of_slot(slot)]
        chosen = {key: choice.offer for key, choice in choices.items()}
        return [
            *registry.conflicts(),
            *unknown_words(offers, private),
            *negotiate(chosen, others=offers, known={*CAPABILITIES, *private}),
            *stage_problems(_strategies(choices)),
        ]

    def _rank_problems(self, choices: Mapping[str, Choice], config: Mapping[str, Any]) -> list[Problem]:
        """Why the ranks that the launcher starts cannot be divided as the strategies ask."""
        if "launcher" not in choices:
            return world_problems(_strategies(choices), config, 1)
        offer = choices["launcher"].offer
        reference = cast("LauncherProvider[Any]", offer.provider).world
        count = load(reference, plugin=offer.plugin, distribution=offer.distribution)
        cls = self.host.config_class(offer)
        made = None if cls is None else instantiate(cls, section_of(config, "launcher"))
        return world_problems(_strategies(choices), config, count(made))

    # ── freezing ───────────────────────────────────────────────────────────────────────────────────────────────

    def _freeze(
        self,
        choices: Mapping[str, Choice],
        config: dict[str, Any],
        given: Mapping[str, str],
        patches: Sequence[PlannedPatch],
        notes: Sequence[str],
    ) -> Plan:
        split = [
            f"{choice.offer}: {reason}"
            for choice in choices.values()
            for reason in choice.offer.provider.split_reasons(section_of(config, choice.key))
        ]
        return Plan(
            core=__version__,
            plugins=planned_plugins(self.host, list(self.host.active)),
            picks=tuple(_planned(choice) for choice in choices.values()),
            config=config,
            origins=leaf_origins(config, given) | {key: c.origin for key, c in choices.items()},
            patches=tuple(patches),
            notes=(*notes, *split),
            environment=environment(),
        )


def _strategies(choices: Mapping[str, Choice]) -> dict[str, Offer]:
    return {key: choice.offer for key, choice in choices.items() if choice.slot == "parallelism"}


def _planned(choice: Choice) -> PlannedPick:
    return PlannedPick(
        key=choice.key,
        slot=choice.slot,
        name=choice.offer.name,
        plugin=choice.offer.plugin,
        preset=choice.preset,
        source=str(choice.source) if choice.source else None,
    )
