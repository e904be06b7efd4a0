"""Naming is choosing: a plugin named in `--plugins` fills the slots of which it has one offer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from xtuner_core.host import Host
from xtuner_core.records import SINGLE_SLOTS, SLOTS, Problem
from xtuner_core.registry import Offer

_WIRING_HOOKS = ("xtuner_configure", "xtuner_check", "xtuner_explain", "xtuner_commands")


class Naming:
    """What the named plugins would fill.

    :param named: names as given in `--plugins`; all are active.
    """

    def __init__(self, named: Sequence[str], host: Host) -> None:
        self.named = tuple(dict.fromkeys(named))
        self.host = host
        self._fills: dict[str, list[Offer]] = defaultdict(list)
        for plugin in self.named:
            for slot in SINGLE_SLOTS:
                offer = _only(host.registry.of_plugin(plugin), slot, plugin)
                if offer is not None:
                    self._fills[slot].append(offer)

    def candidates(self, slot: str) -> list[Offer]:
        """The offers of named plugins that would fill a slot; more than one is a conflict."""
        return list(self._fills.get(slot, ()))

    def fills(self, slot: str) -> Offer | None:
        """The offer that fills a slot; None where none does, or several would."""
        offers = self.candidates(slot)
        return offers[0] if len(offers) == 1 else None

    def unused(self, chosen: Iterable[Offer], excused: Iterable[str] = ()) -> list[Problem]:
        """Named plugins from which the run takes nothing.

        :param excused: plugins of which something was to be taken, and another problem says why it was not.
        """
        used = {offer.plugin for offer in chosen}
        used |= {required for plugin in used for required in self.host.infos[plugin].requires_plugins}
        return [
            _unused(plugin, self.host)
            for plugin in self.named
            if plugin not in used.union(excused) and self._idle(plugin)
        ]

    def _idle(self, plugin: str) -> bool:
        serves = any(offer.slot == "operator" for offer in self.host.registry.of_plugin(plugin))
        return not serves and not self.host.implements(plugin, *_WIRING_HOOKS)


def _only(offers: Sequence[Offer], slot: str, plugin: str) -> Offer | None:
    of_slot = [offer for offer in offers if offer.slot == slot]
    same_name = [offer for offer in of_slot if offer.name == plugin]
    return of_slot[0] if len(of_slot) == 1 else same_name[0] if same_name else None


def contested(slot: str, offers: Sequence[Offer]) -> Problem:
    """Refuse a slot that several named plugins would fill and nobody decided."""
    plugins = tuple(offer.plugin for offer in offers)
    message = f"the named plugins {' and '.join(map(repr, plugins))} both offer a {slot}"
    fix = "write " + " or ".join(f"{slot}={offer.name}" for offer in offers)
    return Problem(message=message, fix=fix, code="contested", key=slot, plugins=plugins)


def _unused(plugin: str, host: Host) -> Problem:
    offers = [offer for offer in host.registry.of_plugin(plugin) if offer.slot in SLOTS]
    writings = " or ".join(f"{offer.slot}={offer.name}" for offer in offers)
    fix = f"write {writings}, or leave it out of --plugins" if offers else "leave it out of --plugins"
    message = f"plugin {plugin!r} is named, but this run takes nothing from it"
    return Problem(message=message, fix=fix, code="unused", key="plugins", plugins=(plugin,))
