"""What was found out about a file's content, remembered until the file changes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from xtuner_core.errors import DataError

SETTLED_NS = 2_000_000_000
"""A file that changed less than this ago may change again within one tick of its clock: not remembered yet."""
BLOCK = 1 << 20
"""Bytes of one read."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read, unbuffered.

    :raises DataError: it is not there, is no regular file, may not be read, or reading it fails.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no file", fix="name a file, a folder or a glob")
    try:
        with path.open("rb", buffering=0) as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", fix="correct the path") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", fix="see to its permissions") from error


def stamp(file: BinaryIO) -> list[int]:
    """Size, time of the last change (ns) and inode: while they stay, nobody wrote to the file in the usual way."""
    found = os.fstat(file.fileno())
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def blocks(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """The rest of a file in pieces of a mebibyte.

    :param size: bytes to read at most; None reads to the end.
    """
    left = size
    while block := file.read(BLOCK if left is None else min(BLOCK, left)):
        left = None if left is None else left - len(block)
        yield block


def digest(file: BinaryIO) -> dict[str, Any]:
    """The SHA-256 of a file's content."""
    found = hashlib.sha256()
    for block in blocks(file):
        found.update(block)
    return {"sha256": found.hexdigest()}


def remembered(path: Path, cache: Path, kind: str, find: Callable[[BinaryIO], dict[str, Any]]) -> dict[str, Any]:
    """What `find` finds in a file; from the second start on without reading it, while stamp and inode's time stay.

    A damaged note is made again; two runs may write one at once.

    :param cache: folder of the notes; where it cannot be written nothing is remembered.
    :param kind: what is looked for, with every setting that decides it.
    :param find: gets the open file; returns plain data with string keys.
    :raises DataError: the file cannot be read, or changes meanwhile.
    """
    name = hashlib.sha256(f"{kind} of {path}".encode("utf-8", "surrogateescape")).hexdigest()
    note = cache / "contents" / f"{name}.json"
    with opened(path) as file:
        before = stamp(file)
        changed = os.fstat(file.fileno()).st_ctime_ns  # nobody can set it back
        key = [str(path), kind, *before, changed]
        found = _read(note, key)
        if found is None:
            found = find(file)
            if stamp(file) != before:
                raise DataError(f"{path} changes while it is read", fix="wait until it is written, then start again")
            if abs(time.time_ns() - max(before[1], changed)) > SETTLED_NS:
                _write(note, key, found)
    return found


def _read(note: Path, key: list[Any]) -> dict[str, Any] | None:
    try:
        written = json.loads(note.read_bytes())
        intact = written["key"] == key and written["sum"] == _sum(written["key"], written["found"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return written["found"] if intact else None


def _write(note: Path, key: list[Any], found: dict[str, Any]) -> None:
    beside = note.with_suffix(f".{uuid4().hex}.tmp")
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_text(json.dumps({"key": key, "found": found, "sum": _sum(key, found)}), encoding="utf-8")
            beside.replace(note)
        finally:
            beside.unlink(missing_ok=True)


def _sum(key: Any, found: Any) -> str:
    return hashlib.sha256(json.dumps([key, found], sort_keys=True).encode()).hexdigest()
