"""Which part a record belongs to: a fixed rule over its own bytes, so that others beside it change nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from xtuner_core.contracts.dataset import Split

_SPAN = 1 << 64


def part_of(content: bytes | bytearray, held_out_fraction: float) -> Split:
    """Part of a record with this content: held out where BLAKE2b's first 8 bytes lie in the fraction.

    A record that stands twice is in one part, so that none is trained on and scored.

    :param held_out_fraction: share of records that are held out, in [0, 1).
    """
    if not held_out_fraction:
        return "train"
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return "held_out" if int.from_bytes(digest, "little") < held_out_fraction * _SPAN else "train"


def content_of(row: Mapping[str, Any]) -> bytes:
    """The content of a row of a table for `part_of`: JSON with its keys in order."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), default=str).encode()


def check_fraction(value: float) -> None:
    """Refuse what is no share of records.

    :raises ValueError: it is outside [0, 1).
    """
    if not 0 <= value < 1:
        raise ValueError(f"held_out_fraction must be at least 0 and below 1, not {value}")
