"""The plugin host: a typed façade over pluggy that activates, collects and attributes every failure to its plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import pluggy

from xtuner_core import hookspecs
from xtuner_core.contract_version import check_contract
from xtuner_core.discovery import Candidate, Discovery, discover
from xtuner_core.errors import ContractError, PluginError, UnknownName, XTunerCoreError
from xtuner_core.loading import import_module, load
from xtuner_core.records import Command, Hint, Patch, PluginInfo, Problem, Recipe
from xtuner_core.registry import Offer, Registry, check_provider

if TYPE_CHECKING:
    from xtuner_core.contracts.device import DeviceFacts
    from xtuner_core.plan import Plan

CORE = "xtuner-core"
"""The distribution whose plugins are always active; they are offers, not choices."""

_OFFER_HOOKS = (
    "xtuner_models",
    "xtuner_parallelisms",
    "xtuner_devices",
    "xtuner_losses",
    "xtuner_algorithms",
    "xtuner_providers",
)


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
                reference = dict(plugin=name, distribution=candidate.distribution)
                self._activate(candidate, lambda c=candidate, r=reference: import_module(c.module, **r))  # type: ignore[misc]

    def _candidate(self, name: str) -> Candidate:
        if name in self.discovery.clashes:
            sources = " and ".join(f"{c.distribution} {c.version}" for c in self.discovery.clashes[name])
            message = f"the plugin name {name!r} is claimed by {sources}"
            raise PluginError(message, fix="uninstall one of them", plugin=name)
        if name not in self.discovery.candidates:
            near = get_close_matches(name, self.discovery.candidates, n=1)
            fix = f"write {near[0]!r}" if near else f"pip install xtuner-core-{name.replace('_', '-')}, if it exists"
            raise UnknownName(f"no plugin {name!r} is installed", fix=fix, plugin=name)
        return self.discovery.candidates[name]

    def _activate(self, candidate: Candidate, source: Callable[[], object]) -> None:
        name = candidate.name
        try:
            plugin = source()
            self._register(plugin, candidate)
            info = self._info(plugin, candidate)
            offers = [offer for hook in _OFFER_HOOKS for offer in self._offers(hook, plugin, candidate)]
            self.active[name] = candidate
            self.activate(*info.requires_plugins)
        except BaseException:
            self._forget(name)
            raise
        self.infos[name] = info
        self.registry.add(offers)

    def _forget(self, name: str) -> None:
        self.active.pop(name, None)
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)

    def _register(self, plugin: object, candidate: Candidate) -> None:
        fix = f"update or uninstall {candidate.distribution}"
        try:
            self._manager.register(plugin, name=candidate.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            message = f"{candidate} breaks the contract: {str(error).strip().splitlines()[-1]}"
            raise ContractError(message, fix=fix, plugin=candidate.name) from error
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
        return infos

    def _offers(self, hook: str, plugin: object, candidate: Candidate) -> Iterator[Offer]:
        for record in self._call_one(hook, plugin, candidate) or ():
            provider = check_provider(record, candidate.name)
            yield Offer(provider, candidate.name, candidate.distribution, candidate.version)

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
            for answer in self._call_one(hook, plugin, candidate, **arguments) or ():
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
                hints += self._call_one("xtuner_explain", plugin, candidate, error=error, plan=plan) or ()
            except PluginError as failure:
                hints.append(Hint(f"(plugin {candidate.name!r} could not explain it: {failure.message})"))
        return hints

    def config_class(self, offer: Offer) -> type | None:
        """Configuration dataclass of an offer, or None where it has none."""
        if offer.provider.config is None:
            return None
        loaded = load(offer.provider.config, plugin=offer.plugin, distribution=offer.distribution)
        assert isinstance(loaded, type)
        return loaded

    def settings_class(self, plugin: str) -> type | None:
        """Settings dataclass of an active plugin, or None where it has none."""
        settings = self.infos[plugin].settings
        if settings is None:
            return None
        loaded = load(settings, plugin=plugin, distribution=self.active[plugin].distribution)
        assert isinstance(loaded, type)
        return loaded

    def catalog(self) -> dict[str, Any]:
        """Every offer of the active plugins, and every installed plugin, as plain data with JSON schemas."""
        from xtuner_core.catalog import catalog

        return catalog(self)
