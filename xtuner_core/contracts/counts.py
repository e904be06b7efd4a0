"""What a model's configuration counts. No torch here: a provider's configuration module imports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Parameters of a model."""

    total: int
    active: int
    """Those that one token meets; the embedding table is not among them, the head is."""
