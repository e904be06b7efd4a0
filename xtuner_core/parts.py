"""The components of a planned run: factories imported when asked for, called with their configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from xtuner_core.config.pick import pick_fields
from xtuner_core.config.root import CoreConfig
from xtuner_core.config.schema import instantiate, section_of
from xtuner_core.errors import PluginError, XTunerCoreError
from xtuner_core.host import Host
from xtuner_core.loading import load
from xtuner_core.plan import Plan, PlannedPick
from xtuner_core.registry import Offer


class Parts:
    """Makes what a plan picked.

    :param host: holds the plan's plugins, active.
    """

    def __init__(self, plan: Plan, host: Host) -> None:
        self.plan = plan
        self.host = host
        known = {name: plan.config[name] for name in CoreConfig.__dataclass_fields__ if name in plan.config}
        self.core: CoreConfig = instantiate(CoreConfig, known)

    def offer(self, key: str) -> Offer:
        """The offer that the plan picked for a key."""
        pick = self._pick(key)
        offers = self.host.registry.of_slot(pick.slot)
        return next(offer for offer in offers if offer.name == pick.name and offer.plugin == pick.plugin)

    def _pick(self, key: str) -> PlannedPick:
        pick = self.plan.pick(key)
        assert pick is not None, f"the plan picks nothing for {key}"
        return pick

    def config(self, key: str) -> Any:
        """Configuration dataclass of a key, nested picks as the dataclasses of their own; None where there is none."""
        cls = self.host.config_class(self.offer(key))
        if cls is None:
            return None
        made = instantiate(cls, section_of(self.plan.config, key))
        for name in pick_fields(cls):
            inner = f"{key}.{name}"
            object.__setattr__(made, name, self.config(inner) if self.plan.pick(inner) else None)
        return made

    def make(self, key: str, *arguments: Any, **named: Any) -> Any:
        """Call the factory of a key with its configuration and these arguments.

        Where the configuration has fields that are picks, the factory is also given `nested`: for each that was
        picked, a function that makes it, with arguments of the factory's own.

        :raises PluginError: the factory cannot be imported, or raises something that is no error of ours.
        """
        offer = self.offer(key)
        factory = load(offer.provider.factory, plugin=offer.plugin, distribution=offer.distribution)
        try:
            return factory(self.config(key), *arguments, **named, **self._nested(key))
        except XTunerCoreError:
            raise
        except Exception as error:
            message = f"{offer} ({key}) cannot be made: {type(error).__name__}: {error}"
            fix = f"update or uninstall {offer.distribution}"
            raise PluginError(message, fix=fix, plugin=offer.plugin) from error

    def _nested(self, key: str) -> dict[str, dict[str, Callable[..., Any]]]:
        cls = self.host.config_class(self.offer(key))
        names = pick_fields(cls) if cls is not None else {}
        picked = [name for name in names if self.plan.pick(f"{key}.{name}")]
        return {"nested": {name: partial(self.make, f"{key}.{name}") for name in picked}} if names else {}

    def operators(self) -> Iterator[tuple[Offer, Any]]:
        """Every implementation that an active plugin offers; an operator's factory names the record itself."""
        for offer in self.host.registry.of_slot("operator"):
            yield offer, load(offer.provider.factory, plugin=offer.plugin, distribution=offer.distribution)
