"""Layers as a person writes them: `0-3,8,20-`. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"(\d+)(?:(-)(\d*))?")


@dataclass(frozen=True, slots=True)
class LayerRanges:
    """Layers counted from 0, in ranges that include both ends; an open one goes on to the last layer."""

    ranges: tuple[tuple[int, int | None], ...]

    def __contains__(self, layer: int) -> bool:
        return any(first <= layer and (last is None or layer <= last) for first, last in self.ranges)

    @classmethod
    def parse(cls, text: str) -> LayerRanges:
        """Read `0-3,8,20-`.

        :raises ValueError: it says no such thing; names the part that does not.
        """
        return cls(tuple(_range(part.strip(), text) for part in text.split(",")))


def _range(part: str, text: str) -> tuple[int, int | None]:
    found = _RANGE.fullmatch(part)
    if found is None:
        raise ValueError(f"layers {text!r}: {part!r} is no layer and no range; write 8, 0-3 or 20-, joined by commas")
    first, dash, last = found.groups()
    if not dash:
        return int(first), int(first)
    if last and int(last) < int(first):
        raise ValueError(f"layers {text!r}: the range {part!r} ends before it begins")
    return int(first), int(last) if last else None
