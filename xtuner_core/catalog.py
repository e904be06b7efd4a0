"""Everything on offer as plain data: what a platform shows its users before it composes a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from xtuner_core.config.describe import json_schema
from xtuner_core.config.root import CoreConfig
from xtuner_core.errors import XTunerCoreError
from xtuner_core.host import Host
from xtuner_core.records import SLOTS
from xtuner_core.registry import Offer

SCHEMA = 1
"""Version of the catalog's own form."""


def catalog(host: Host) -> dict[str, Any]:
    """Offers of the active plugins with their JSON schemas, recipes, and what else is installed."""
    offers = [offer for slot in SLOTS for offer in host.registry.of_slot(slot)]
    return {
        "schema": SCHEMA,
        "slots": dict(SLOTS),
        "settings": json_schema(CoreConfig),
        "offers": [describe_offer(host, offer) for offer in offers],
        "recipes": [{"plugin": p, "name": r.name, "summary": r.summary} for p, r in host.recipes().values()],
        "installed": [_installed(host, name) for name in sorted(host.discovery.candidates)],
    }


def describe_offer(host: Host, offer: Offer) -> dict[str, Any]:
    """One offer as plain data."""
    provider = offer.provider
    config, fault = _schema(host, offer)
    return {
        "slot": offer.slot,
        "name": offer.name,
        "plugin": offer.plugin,
        "distribution": offer.distribution,
        "version": offer.version,
        "summary": provider.summary,
        "provides": sorted(provider.provides),
        "requires": sorted(provider.requires),
        "lacks": {word: asdict(lack) for word, lack in provider.lacks.items()},
        "depends_on_split": provider.depends_on_split,
        "presets": [asdict(preset) for preset in provider.presets],
        "config": config,
        "fault": fault,
    }


def _schema(host: Host, offer: Offer) -> tuple[dict[str, Any] | None, str]:
    """JSON schema of an offer's configuration, or why there is none; one broken plugin spoils no catalog."""
    try:
        config = host.config_class(offer)
    except XTunerCoreError as error:
        return None, error.message
    return None if config is None else json_schema(config), ""


def _installed(host: Host, name: str) -> dict[str, Any]:
    candidate = host.discovery.candidates[name]
    return {
        "name": name,
        "distribution": candidate.distribution,
        "version": candidate.version,
        "active": name in host.active,
        "fault": candidate.fault,
        "offers": sorted(key for key, owners in host.discovery.index.items() if name in owners),
    }
