"""The plugin host: a typed façade over pluggy that activates, collects and attributes every failure to its plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import pluggy

from xtuner_core import hookspecs
from xtuner_core.contract_version import check_contract
from xtuner_core.discovery import CORE, Candidate, Discovery, discover
from xtuner_core.errors import ContractError, PluginError, UnknownName, XTunerCoreError
from xtuner_core.loading import import_module, load
from xtuner_core.records import Command, Hint, Patch, PluginInfo, Problem, Recipe
from xtuner_core.registry import Offer, Registry, check_provider

if TYPE_CHECKING:
    from xtuner_core.contracts.device import DeviceFacts
    from xtuner_core.plan import Plan

_OFFER_HOOKS = (
    "xtuner_models",
    "xtuner_parallelisms",
    "xtuner_devices",
    "xtuner_losses",
    "xtuner_algorithms",
    "xtuner_providers",
)
_ANSWERS = {
    "xtuner_commands": Command,
    "xtuner_configure": Patch,
    "xtuner_check": Problem,
    "xtuner_explain": Hint,
}
"""Hook to the record that it returns any number of."""


__all__ = ["CORE", "Host"]


class Host:
    """The plugins of one process or platform. Several may exist side by side.

    :param plugins: names of installed plugins to activate.
    :param objects: plugins passed as objects (a module or an instance with hook implementations), by name.
    :param discovery: what is installed; None scans the environment once.
    :raises XTunerCoreError: a plugin cannot be activated.
    """

    def __init__(
        self,
        plugins: Sequence[str] = (),
        *,
        objects: Mapping[str, object] | None = None,
        discovery: Discovery | None = None,
    ) -> None:
        self.discovery = discover() if discovery is None else discovery
        self.registry = Registry()
        self.active: dict[str, Candidate] = {}
        self.infos: dict[str, PluginInfo] = {}
        self._manager = pluggy.PluginManager("xtuner_core")
        self._manager.add_hookspecs(hookspecs)
        self.activate(*self.discovery.of_distribution(CORE))
        for name, plugin in (objects or {}).items():
            self._refuse_taken(name)
            self._activate(Candidate(name, "", "object", "0", editable=False), lambda plugin=plugin: plugin)  # type: ignore[misc]
        self.activate(*plugins)

    # ── activation ─────────────────────────────────────────────────────────────────────────────────────────────

    def activate(self, *names: str) -> None:
        """Activate installed plugins and those they require; what is active stays as it is.

        :raises UnknownName: no plugin of this name is installed; says the nearest.
        :raises PluginError: it is broken; the host stays as it was.
        """
        for name in names:
            if name not in self.active:
                candidate = self._candidate(name)
                reference = {"plugin": name, "distribution": candidate.distribution}
                self._activate(candidate, lambda c=candidate, r=reference: import_module(c.module, **r))  # type: ignore[misc]

    def _refuse_taken(self, name: str) -> None:
        if name in self.active:
            message = f"the name {name!r} of a plugin passed as an object is that of {self.active[name]}"
            raise PluginError(message, fix="pass it under another name", plugin=name)

    def _candidate(self, name: str) -> Candidate:
        if name in self.discovery.clashes and name not in self.discovery.candidates:
            sources = " and ".join(f"{c.distribution} {c.version}" for c in self.discovery.clashes[name])
            message = f"the plugin name {name!r} is claimed by {sources}"
            raise PluginError(message, fix="uninstall one of them", plugin=name)
        if name not in self.discovery.candidates:
            near = get_close_matches(name, self.discovery.candidates, n=1)
            fix = f"write {near[0]!r}" if near else f"pip install xtuner-core-{name.replace('_', '-')}, if it exists"
            raise UnknownName(f"no plugin {name!r} is installed", fix=fix, plugin=name)
        return self.discovery.candidates[name]

    def _activate(self, candidate: Candidate, source: Callable[[], object]) -> None:
        before = set(self.active)
        try:
            plugin = self._imported(candidate, source)
            self._register(plugin, candidate)
            self.active[candidate.name] = candidate
            self.infos[candidate.name] = info = self._info(plugin, candidate)
            self._refuse_unknown_hooks(plugin, candidate)
            self.registry.add([offer for hook in _OFFER_HOOKS for offer in self._offers(hook, plugin, candidate)])
            self._require(info.requires_plugins, candidate)
        except BaseException:
            for name in self.active.keys() - before:
                self._forget(name)
            raise

    def _forget(self, name: str) -> None:
        self._manager.unregister(name=name)
        self.registry.drop(name)
        self.infos.pop(name, None)
        del self.active[name]

    def _imported(self, candidate: Candidate, source: Callable[[], object]) -> object:
        try:
            return source()
        except PluginError as error:
            if candidate.fault:
                error.fix = f"{candidate.fault}; {error.fix}"
            raise

    def _require(self, names: Sequence[str], candidate: Candidate) -> None:
        for name in names:
            try:
                self.activate(name)
            except XTunerCoreError as error:
                message = f"{candidate} requires the plugin {name!r}: {error.message}"
                raise type(error)(message, fix=error.fix, plugin=candidate.name) from error

    def _register(self, plugin: object, candidate: Candidate) -> None:
        fix = f"update or uninstall {candidate.distribution}"
        try:
            self._manager.register(plugin, name=candidate.name)
        except pluggy.PluginValidationError as error:
            where, why = _validation(error)
            raise ContractError(
                f"{candidate} breaks the contract in {where}: {why}", fix=fix, plugin=candidate.name
            ) from error
        except ValueError as error:  # the same module under a second name
            message = f"{candidate} is a module that another active plugin already is: {candidate.module}"
            raise ContractError(message, fix=fix, plugin=candidate.name) from error

    def _refuse_unknown_hooks(self, plugin: object, candidate: Candidate) -> None:
        fix = f"update or uninstall {candidate.distribution}"
        unmarked = [name for name in _HOOKS if hasattr(plugin, name) and not self.implements(candidate.name, name)]
        if unmarked:
            message = f"{candidate} has a function {unmarked[0]} that is no hook implementation"
            raise ContractError(message, fix=f"its author has to mark it with @hookimpl; {fix}", plugin=candidate.name)
        unknown = [hook.name for hook in self._manager.get_hookcallers(plugin) or () if not hook.has_spec()]
        if unknown:
            near = get_close_matches(unknown[0], vars(hookspecs), n=1)
            advice = f"did its author mean {near[0]}? {fix}" if near else fix
            message = f"{candidate} implements {unknown[0]}, which is no hook of this contract"
            raise ContractError(message, fix=advice, plugin=candidate.name)

    def _info(self, plugin: object, candidate: Candidate) -> PluginInfo:
        infos = self._call_one("xtuner_plugin", plugin, candidate)
        if not isinstance(infos, PluginInfo):
            message = f"{candidate} does not say what it is: it has no xtuner_plugin hook that returns a PluginInfo"
            raise ContractError(message, fix=f"update or uninstall {candidate.distribution}", plugin=candidate.name)
        check_contract(infos.contract, candidate)
        foreign = [word for word in infos.capabilities if not word.startswith(f"{candidate.name}.")]
        if foreign:
            message = f"{candidate} declares the capability {foreign[0]!r}, which does not begin with its name"
            fix = f"update or uninstall {candidate.distribution}"
            raise ContractError(message, fix=fix, plugin=candidate.name)
        return infos

    def _offers(self, hook: str, plugin: object, candidate: Candidate) -> Iterator[Offer]:
        for record in self._records(hook, plugin, candidate):
            provider = check_provider(record, candidate)
            yield Offer(provider, candidate.name, candidate.distribution, candidate.version)

    def _records(self, hook: str, plugin: object, candidate: Candidate, **arguments: Any) -> list[Any]:
        """What a hook returns any number of."""
        found = self._call_one(hook, plugin, candidate, **arguments)
        kind = _ANSWERS.get(hook, object)
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(record, kind) for record in found):
            message = f"{candidate} returns {found!r} from {hook}, not {_wanted(kind)}"
            fix = f"update or uninstall {candidate.distribution}"
            raise ContractError(message, fix=fix, plugin=candidate.name)
        return found

    def _call_one(self, hook: str, plugin: object, candidate: Candidate, **arguments: Any) -> Any:
        """One plugin's answer to one hook; whatever it raises is told with its name."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin is plugin:
                try:
                    answer = implementation.function(*(arguments[name] for name in implementation.argnames))
                    return list(answer) if isinstance(answer, Iterable) else answer
                except XTunerCoreError:
                    raise
                except Exception as error:
                    message = f"{candidate} fails in {hook}: {type(error).__name__}: {error}"
                    fix = f"update or uninstall {candidate.distribution}"
                    raise ContractError(message, fix=fix, plugin=candidate.name) from error
        return None

    # ── what the active plugins say ────────────────────────────────────────────────────────────────────────────

    def _answers(self, hook: str, **arguments: Any) -> Iterator[tuple[Candidate, Any]]:
        for candidate in list(self.active.values()):
            plugin = self._manager.get_plugin(candidate.name)
            for answer in self._records(hook, plugin, candidate, **arguments):
                yield candidate, answer

    def implements(self, plugin: str, *hooks: str) -> bool:
        """Whether an active plugin implements one of these hooks."""
        module = self._manager.get_plugin(plugin)
        return any(caller.name in hooks for caller in self._manager.get_hookcallers(module) or ())

    def patches(self, config: Mapping[str, Any]) -> list[tuple[str, Patch]]:
        """Patches to a configuration, each with its plugin's name."""
        return [(c.name, patch) for c, patch in self._answers("xtuner_configure", config=config)]

    def check(self, plan: Plan, facts: DeviceFacts | None) -> list[Problem]:
        """What the active plugins have against a plan."""
        return [problem for _, problem in self._answers("xtuner_check", plan=plan, facts=facts)]

    def commands(self) -> list[tuple[Candidate, Command]]:
        """Commands of the active plugins."""
        return list(self._answers("xtuner_commands"))

    def recipes(self) -> dict[str, tuple[str, Recipe]]:
        """Recipes of the active plugins by name, each with its plugin's."""
        return {recipe.name: (name, recipe) for name, info in self.infos.items() for recipe in info.recipes}

    def explain(self, error: BaseException, plan: Plan | None) -> list[Hint]:
        """Hints of the active plugins to an error; one that fails over it is passed over."""
        hints: list[Hint] = []
        for candidate in self.active.values():
            plugin = self._manager.get_plugin(candidate.name)
            try:
                hints += self._records("xtuner_explain", plugin, candidate, error=error, plan=plan)
            except XTunerCoreError as failure:
                hints.append(Hint(f"(plugin {candidate.name!r} could not explain it: {failure.message})"))
        return hints

    def config_class(self, offer: Offer) -> type | None:
        """Configuration dataclass of an offer, or None where it has none."""
        if offer.provider.config is None:
            return None
        return _dataclass(offer.provider.config, self.active[offer.plugin], str(offer))

    def settings_class(self, plugin: str) -> type | None:
        """Settings dataclass of an active plugin, or None where it has none."""
        settings = self.infos[plugin].settings
        return None if settings is None else _dataclass(settings, self.active[plugin], "its settings")

    def catalog(self) -> dict[str, Any]:
        """Every offer of the active plugins, and every installed plugin, as plain data with JSON schemas."""
        from xtuner_core.catalog import catalog

        return catalog(self)


_HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("xtuner_"))


def _validation(error: pluggy.PluginValidationError) -> tuple[str, str]:
    """Where a hook implementation does not fit its specification, and why, out of pluggy's lines."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    where = next((line.partition(": ")[2] for line in lines if line.startswith("hookimpl definition")), "a hook")
    return where, lines[-1]


def _wanted(kind: type) -> str:
    return "an iterable of records" if kind is object else f"an iterable of {kind.__name__}"


def _dataclass(reference: str | type, candidate: Candidate, what: str) -> type:
    loaded = load(reference, plugin=candidate.name, distribution=candidate.distribution)
    if not isinstance(loaded, type) or not is_dataclass(loaded):
        message = f"{candidate} gives {reference!r} as the configuration of {what}, which is no dataclass"
        raise ContractError(message, fix=f"update or uninstall {candidate.distribution}", plugin=candidate.name)
    return loaded
