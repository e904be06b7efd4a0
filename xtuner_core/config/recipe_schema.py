"""JSON Schema of a whole recipe, for editors: every key that may stand in it, with its docstring."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from xtuner_core.config.describe import json_schema
from xtuner_core.config.layers import PLUGINS
from xtuner_core.config.pick import pick_fields
from xtuner_core.config.root import CoreConfig
from xtuner_core.host import Host
from xtuner_core.records import MANY_SLOTS, SINGLE_SLOTS, UNPICKED_SLOTS
from xtuner_core.registry import Offer

DIALECT = "https://json-schema.org/draft/2020-12/schema"
INTERPOLATION = {"type": "string", "pattern": r"\$\{"}
"""What may stand for a value of any type: `${other.key}`."""
CONFIGURED = "configured"
"""What the definition of an offer without its name ends in."""


def recipe_schema(host: Host) -> dict[str, Any]:
    """Describe the recipes that the active plugins of a host can serve.

    A pick is a name, a preset, a path, or a mapping with `name` and the keys of that offer; names of installed
    plugins that are not active are let through, since a recipe may activate them, and their keys are unknown here.

    :raises XTunerCoreError: a plugin's configuration cannot be imported.
    """
    definitions: dict[str, Any] = {}
    core = _lifted(json_schema(CoreConfig), "core", definitions)
    slots = {slot: _pick(host, slot) for slot in SINGLE_SLOTS} | {slot: _entries(host, slot) for slot in MANY_SLOTS}
    for slot in (*SINGLE_SLOTS, *MANY_SLOTS):
        for offer in host.registry.of_slot(slot):
            definitions |= _offer(host, offer, definitions)
    definitions |= {f"pick.{slot}": _pick(host, slot) for slot in (*SINGLE_SLOTS, *MANY_SLOTS)}
    pins = {"type": "object", "additionalProperties": {"type": "string"}, "description": UNPICKED_SLOTS["operator"]}
    return {
        "$schema": DIALECT,
        "title": "a recipe of xtuner-core",
        "type": "object",
        "properties": {**core["properties"], **slots, "operator": pins, PLUGINS: _plugins()},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _plugins() -> dict[str, Any]:
    named = {"type": "array", "items": {"type": "string"}}
    return {"anyOf": [{"type": "string"}, named, {"type": "object"}], "description": "plugins that the run activates"}


def _pick(host: Host, slot: str) -> dict[str, Any]:
    """A name, or a mapping with the configuration of one offer, or keys beside a pick that stands elsewhere."""
    beside = {"type": "object", "not": {"required": ["name"]}}
    return {"description": {**SINGLE_SLOTS, **MANY_SLOTS}[slot], "anyOf": [*_named(host, slot), beside]}


def _named(host: Host, slot: str) -> list[dict[str, Any]]:
    offers = host.registry.of_slot(slot)
    names = {"type": "string", "examples": list(_names(offers))}
    configured = [{"$ref": f"#/$defs/{slot}.{offer.name}"} for offer in offers]
    others = {"type": "object", "required": ["name"], "properties": {"name": _unlike(offers)}}
    return [names, *configured, others, {"type": "null"}]


def _entries(host: Host, slot: str) -> dict[str, Any]:
    """A name, or a mapping of entries; an entry that bears an offer's name needs no other."""
    named = _named(host, slot)
    own = {
        offer.name: {"anyOf": [{"$ref": f"#/$defs/{slot}.{offer.name}.{CONFIGURED}"}, *named]}
        for offer in host.registry.of_slot(slot)
    }
    entries = {"type": "object", "properties": own, "additionalProperties": {"$ref": f"#/$defs/pick.{slot}"}}
    return {"description": MANY_SLOTS[slot], "anyOf": [{"type": "string"}, entries]}


def _names(offers: Iterable[Offer]) -> Iterator[str]:
    for offer in offers:
        yield offer.name
        yield from (preset.alias or f"{offer.name}:{preset.name}" for preset in offer.provider.presets)


def _unlike(offers: Iterable[Offer]) -> dict[str, Any]:
    """A name that is none of these offers'."""
    return {"type": "string", "not": {"anyOf": [{"pattern": _spelling(offer)} for offer in offers] or [False]}}


def _spelling(offer: Offer) -> str:
    aliases = [re.escape(preset.alias) for preset in offer.provider.presets if preset.alias]
    return f"^(?:{'|'.join([f'{re.escape(offer.name)}(?::.*)?', *aliases])})$"


def _offer(host: Host, offer: Offer, definitions: dict[str, Any]) -> dict[str, Any]:
    """Two definitions: the keys of an offer, and the same with its name."""
    key, config = f"{offer.slot}.{offer.name}", host.config_class(offer)
    properties: dict[str, Any] = {}
    if config is not None:
        properties = _lifted(json_schema(config), key, definitions)["properties"]
        picks = {name: {"$ref": f"#/$defs/pick.{slot}"} for name, (slot, _) in pick_fields(config).items()}
        properties = {**properties, **picks}
    name = {"type": "string", "pattern": _spelling(offer), "description": f"chooses {offer.provider.summary}"}
    keys = {"type": "object", "description": offer.provider.summary, "additionalProperties": False}
    return {
        f"{key}.{CONFIGURED}": {**keys, "properties": properties},
        key: {**keys, "properties": {"name": name, **properties}, "required": ["name"]},
    }


def _lifted(schema: dict[str, Any], prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema whose own definitions stand among the recipe's, under a prefix; nothing in it is required."""
    for name, inner in schema.pop("$defs", {}).items():
        definitions[f"{prefix}:{name}"] = _relaxed(inner, prefix)
    relaxed = _relaxed(schema, prefix)
    assert isinstance(relaxed, dict)
    return relaxed


def _relaxed(schema: Any, prefix: str) -> Any:
    """References moved below the prefix, interpolations let through, nothing required: a recipe leaves keys out."""
    if isinstance(schema, list):
        return [_relaxed(item, prefix) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {key: _relaxed(value, prefix) for key, value in schema.items() if key != "required"}
    if isinstance(made.get("$ref"), str):
        made["$ref"] = made["$ref"].replace("#/$defs/", f"#/$defs/{prefix}:")
    if isinstance(made.get("properties"), dict):
        made["properties"] = {name: _or_interpolation(item) for name, item in made["properties"].items()}
    return made


def _or_interpolation(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") == "string" and "enum" not in schema:
        return schema
    about: dict[str, Any] = {key: schema[key] for key in ("description", "title", "default") if key in schema}
    return {**about, "anyOf": [{k: v for k, v in schema.items() if k not in about}, INTERPOLATION]}
