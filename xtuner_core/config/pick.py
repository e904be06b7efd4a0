"""A configuration field that is itself a pick."""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any

_SLOT = "xtuner_core.slot"


def pick(slot: str, default: str | None = None) -> Any:
    """Declare a field where the core mounts the configuration of another offer.

    ``text: Any = pick("model")`` lets a user write ``model: {name: internvl, text: {name: qwen3}}``. The factory finds
    the chosen dataclass in the field, or None, and is given `nested`, a mapping by field name of functions that make
    what was chosen: ``def build(config, *, nested): language = nested["text"]()``.

    :param slot: the slot that is picked from.
    :param default: name of the offer, `provider` or `provider:preset`, that is taken where the user picks none.
    """
    return field(default=default, metadata={_SLOT: slot})


def pick_fields(config: type) -> dict[str, tuple[str, str | None]]:
    """Fields of a dataclass that are picks: name to (slot, default)."""
    found: list[Field[Any]] = [item for item in fields(config) if _SLOT in item.metadata]
    return {item.name: (str(item.metadata[_SLOT]), _default(item)) for item in found}


def _default(item: Field[Any]) -> str | None:
    return None if item.default is None else str(item.default)
