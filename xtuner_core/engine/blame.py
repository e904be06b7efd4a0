"""Whose code raised: an unforeseen error is told with the plugins in whose modules it arose."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

from xtuner_core.errors import XTunerCoreError
from xtuner_core.host import Host
from xtuner_core.records import SLOTS
from xtuner_core.registry import Offer


def blame(error: BaseException, host: Host) -> str | None:
    """Name the plugins on the way from the run to the error, the innermost first; None where there are none.

    An error of ours names its plugin itself, and gets None.
    """
    if isinstance(error, XTunerCoreError):
        return None
    packages = {_package(offer): offer for slot in SLOTS for offer in host.registry.of_slot(slot)}
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = [owner for module in reversed(modules) if (owner := _owner(module, packages))]
    plugins = dict.fromkeys(f"plugin {o.plugin!r} ({o.distribution} {o.version})" for o in owners)
    return f"raised in {', called from '.join(plugins)}" if plugins else None


def _package(offer: Offer) -> str:
    """The package that holds the factory's module; the module itself where it lies in none."""
    module = offer.provider.factory.partition(":")[0]
    return module.rpartition(".")[0] or module


def _owner(module: str, packages: Mapping[str, Offer]) -> Offer | None:
    within = [package for package in packages if f"{module}.".startswith(f"{package}.")]
    return packages[max(within, key=len)] if within else None
