"""The safetensors header: 8 bytes of length, JSON, then the tensors' bytes end to end.

Format: https://huggingface.co/docs/safetensors/index, section "Format". Read here without touching the data,
so that a truncated or damaged file is found, key by key, before anything is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

LONGEST_HEADER = 100_000_000
"""The format's limit, bytes."""

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
WORDS = {dtype: word for word, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file."""

    key: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the end of the header."""
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return self.stop - self.start


@dataclass(slots=True)
class Header:
    """What a file holds, and what is wrong with it."""

    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    keys: frozenset[str] | None = frozenset()
    """Every key that the file names, damaged ones included; None where the header itself cannot be read."""


def read_header(file: Path) -> Header:
    """Read what a safetensors file holds, the byte ranges checked against the file's size."""
    try:
        entries, data_bytes = _entries(file)
    except OSError as error:
        return Header(problems=[f"{file.name}: cannot be read: {error.strerror}"], keys=None)
    except ValueError as error:
        return Header(problems=[f"{file.name}: damaged or truncated: {error}"], keys=None)
    header = Header(keys=frozenset(entries))
    for key, value in entries.items():
        try:
            header.tensors[key] = _stored(file, key, value, data_bytes)
        except ValueError as error:
            header.problems.append(f"{file.name}: {key}: {error}")
    if not header.problems:
        header.problems += _gaps(file, header.tensors.values(), data_bytes)
    return header


def header_bytes(tensors: Iterable[StoredTensor]) -> bytes:
    """Make the header of a new file, padded so that the data is aligned to 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for tensor in tensors:
        entries[tensor.key] = {
            "dtype": WORDS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [tensor.start, tensor.stop],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _entries(file: Path) -> tuple[dict[str, Any], int]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise ValueError(f"a header of {length} bytes does not fit a file of {size}")
        entries = json.loads(stream.read(length).decode(), object_pairs_hook=_without_repeats)
    if not isinstance(entries, dict):
        raise ValueError("the header is not a JSON object")  # noqa: TRY004
    entries.pop("__metadata__", None)
    return entries, size - 8 - length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the header names {next(n for n in names if names.count(n) > 1)} twice")
    return found


def _stored(file: Path, key: str, value: Any, data_bytes: int) -> StoredTensor:
    try:
        word, shape = str(value["dtype"]), tuple(int(n) for n in value["shape"])
        start, stop = (int(n) for n in value["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("damaged: its header entry is malformed") from None
    if word not in DTYPES:
        raise ValueError(f"stored as {word}, which is not read here ({', '.join(DTYPES)} are)")
    wanted = math.prod(shape) * DTYPES[word].itemsize
    if min(shape, default=0) < 0 or not 0 <= start <= stop or stop - start != wanted:
        raise ValueError(f"damaged: bytes {start} to {stop} do not hold {word} {list(shape)}")
    if stop > data_bytes:
        raise ValueError(f"truncated: its data ends at byte {stop}, the file's at {data_bytes}")
    return StoredTensor(key, file, DTYPES[word], shape, start, stop)


def _gaps(file: Path, tensors: Iterable[StoredTensor], data_bytes: int) -> list[str]:
    end = 0
    for tensor in sorted(tensors, key=lambda t: (t.start, t.stop)):
        if tensor.start != end:
            return [f"{file.name}: {tensor.key}: damaged: begins at byte {tensor.start}, not at {end}"]
        end = tensor.stop
    if end != data_bytes:
        return [f"{file.name}: damaged: {data_bytes - end} bytes follow the last tensor"]
    return []
