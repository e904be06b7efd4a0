"""The header of a store: what its files hold, with sizes and checksums by which damage is noticed."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

SCHEMA = 1
"""Rises when the files change their form; an older store is made again."""
HEADER = "header.json"
BLOCK = 1 << 20
"""Bytes under one checksum."""
WHOLE = 2 << 30
"""Bytes of a file up to which every block is compared when a store is opened."""
SAMPLES = 1024
"""Blocks that are compared of a larger file, evenly spaced, the first and the last among them."""


class Damaged(Exception):
    """A store is not what was written; the message says where it differs."""


@dataclass(frozen=True, slots=True)
class FileSum:
    """What a file of a store was when it was written."""

    bytes: int
    blocks: tuple[int, ...]
    """CRC-32 of each block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a store holds."""

    records: int
    """Of the source, readable or not."""
    documents: int
    """A record may become several, or none where it is broken."""
    tokens: int
    text_bytes: int
    """UTF-8 bytes of the texts that the tokens were made of; 0 for records that are no text."""
    ids: str
    """dtype of the ids: `uint16` or `uint32`."""
    weights: str | None
    """dtype of the weights, `uint8` where all are 0 or 1, else `float32`; None where every target counts 1."""
    broken: Mapping[str, int]
    """Records that could not be read or encoded, by kind of reason."""
    first_broken: tuple[tuple[str, int | None, str], ...]
    """File, line and reason of the first of them."""
    made_from: Mapping[str, Any]
    """Fingerprints and settings that the key of the store is the hash of."""
    files: Mapping[str, FileSum] = field(default_factory=dict)


def write_header(folder: Path, header: Header) -> None:
    """Write the header last, with a checksum of its own."""
    content = asdict(header)
    (folder / HEADER).write_text(json.dumps({"sha256": _digest(content), "content": content}), encoding="utf-8")


def read_header(folder: Path) -> Header:
    """Read the header, and compare every file's size and checksums with it.

    Files of up to `WHOLE` bytes are compared whole, of larger ones `SAMPLES` blocks: what that misses is a change
    inside a file of gigabytes that left its size as it was.

    :raises Damaged: something differs, or is missing.
    :raises OSError: something is there and may not be read.
    """
    try:
        read = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        content = read["content"]
        if read["sha256"] != _digest(content):
            raise Damaged(f"{HEADER} is damaged")
        files = {name: FileSum(each["bytes"], tuple(each["blocks"])) for name, each in content.pop("files").items()}
        first = tuple((file, line, reason) for file, line, reason in content.pop("first_broken"))
        header = Header(files=files, first_broken=first, **content)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{HEADER} is missing or damaged ({error})") from error
    for name, expected in files.items():
        _compare(folder / name, expected)
    return header


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _compare(file: Path, expected: FileSum) -> None:
    try:
        size = file.stat().st_size
        if size != expected.bytes:
            raise Damaged(f"{file.name} has {size} bytes instead of {expected.bytes}")
        with file.open("rb") as stream:
            for index in chosen_blocks(len(expected.blocks), size):
                stream.seek(index * BLOCK)
                if zlib.crc32(stream.read(BLOCK)) != expected.blocks[index]:
                    raise Damaged(f"{file.name} differs within the {BLOCK} bytes from {index * BLOCK} on")
    except FileNotFoundError as error:
        raise Damaged(f"{file.name} is missing") from error


def chosen_blocks(blocks: int, size: int) -> Sequence[int]:
    """Which blocks of a file are compared when a store is opened."""
    if size <= WHOLE or blocks <= SAMPLES:
        return range(blocks)
    return sorted({place * (blocks - 1) // (SAMPLES - 1) for place in range(SAMPLES)})


class SummedFile:
    """A file that is written from its start to its end, its checksums taken on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: BinaryIO = path.open("wb")
        self._blocks: list[int] = []
        self._open, self._size = 0, 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._stream.write(data)
        view = memoryview(data)
        for part in self._cut(view):
            self._open = zlib.crc32(part, self._open)
            self._size += len(part)
            if self._size % BLOCK == 0:
                self._blocks.append(self._open)
                self._open = 0

    def flush(self) -> None:
        """Let others read what was written."""
        self._stream.flush()

    def move(self, path: Path) -> None:
        """Take the place of the file there; writing goes on."""
        self.path = self.path.replace(path)

    def close(self) -> FileSum:
        """Close it, and return what it is."""
        self._stream.close()
        tail = (self._open,) if self._size % BLOCK else ()
        return FileSum(self._size, (*self._blocks, *tail))

    def _cut(self, view: memoryview) -> Iterator[memoryview]:
        start = 0
        while start < len(view):
            stop = start + BLOCK - (self._size % BLOCK)
            yield view[start:stop]
            start = stop
