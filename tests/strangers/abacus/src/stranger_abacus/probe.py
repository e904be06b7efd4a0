"""Looks for the device without importing torch."""

from __future__ import annotations

from typing import NamedTuple


class Found(NamedTuple):
    """How many there are."""

    count: int
    reason: str


def probe() -> Found:
    """One hangs on every wall."""
    return Found(1, "")
