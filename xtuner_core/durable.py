"""Files and folders that are there whole or not at all, whatever instant the process or the machine dies at.

What is being written lies beside its target under a hidden name, `.NAME.<8 hex digits>.partial`, every byte waited
for, and is put in place by a rename. What is being removed is renamed first, to `….gone`, so that nothing that
bears a proper name is ever half there.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_HIDDEN = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>partial|old|gone)")


def write_synced(file: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file and wait until it is on the disk, so that a rename that follows never outruns it."""
    with file.open("wb") as stream:
        for chunk in chunks:
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())


def write_whole(file: Path, content: bytes) -> None:
    """Write a file, or replace it, in one piece.

    :raises OSError: it cannot be written; then whatever was there is there still.
    """
    partial = _hidden(file, "partial")
    try:
        write_synced(partial, [content])
        partial.replace(file)
        sync_folder(file.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(target: Path, *, over: bool = False) -> Iterator[Path]:
    """Lend a new folder that becomes `target` when the block ends well, and disappears when it does not.

    :param over: whether `target` may be there already, and is replaced.
    :raises OSError: something cannot be written.
    """
    partial = _create_beside(target)
    try:
        yield partial
        for folder in sorted({partial, *(item for item in partial.rglob("*") if item.is_dir())}, reverse=True):
            sync_folder(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        old = _move_away(target) if over and target.exists() else None
        partial.rename(target)
        sync_folder(target.parent)
        sync_folder(partial.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def check_creatable(target: Path) -> None:
    """Find out whether `whole_folder(target)` could begin.

    :raises OSError: it could not.
    """
    _create_beside(target).rmdir()


def remove_folder(folder: Path) -> None:
    """Remove a folder such that it is there whole or not at all.

    :raises OSError: it cannot be renamed.
    """
    gone = _hidden(folder, "gone")
    folder.rename(gone)
    sync_folder(folder.parent)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> list[str]:
    """Remove what dead writers left in `folder`, and put back what one had moved away and not yet replaced.

    :returns: the names of what was removed.
    """
    removed = []
    for item in sorted(folder.iterdir()) if folder.is_dir() else []:
        found = _HIDDEN.fullmatch(item.name)
        if found is None:
            continue
        if found["kind"] == "old" and not (folder / found["name"]).exists():
            item.rename(folder / found["name"])
            continue
        removed.append(item.name)
        if item.is_dir():
            shutil.rmtree(item, ignore_errors=True)
        else:
            item.unlink(missing_ok=True)
    return removed


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_beside(target: Path) -> Path:
    # The nearest folder that is there: parents are created at the end, so that a failure leaves none behind.
    home = next(parent for parent in target.parents if parent.exists())
    partial = _hidden(home / target.name, "partial")
    partial.mkdir()
    return partial


def _move_away(target: Path) -> Path:
    old = _hidden(target, "old")
    target.rename(old)
    return old


def _hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{kind}")
