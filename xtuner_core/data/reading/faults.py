"""Why a row is broken, in the words of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Fault(ValueError):
    """What is wrong with a row, a clause."""


def kind_of(value: Any) -> str:
    """What a value is, with its article: `a number`, `a list`, `null`."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    kinds = ((str, "a text"), ((int, float), "a number"), (Mapping, "a mapping"), ((list, tuple), "a list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), f"a {type(value).__name__}")
