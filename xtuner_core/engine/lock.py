"""One run at a time in a folder: a lock that dies with its process."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xtuner_core.engine.folder import unwritable
from xtuner_core.errors import UsageError

FILE = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder; the system gives it back when the process ends, however it ends.

    It is a POSIX record lock: unlike `flock`'s, it is not inherited by worker processes, which may outlive a
    killed run. Within one process runs follow each other anyway (`engine.process.sole_run`).

    :raises UsageError: another process holds it, which is named; or the folder cannot be written.
    """
    try:
        descriptor = _take(folder / FILE)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        (folder / FILE).unlink(missing_ok=True)
        os.close(descriptor)


def _take(file: Path) -> int:
    """Lock the file that bears the name now: its former holder may be about to remove it."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(descriptor, 1000)
            os.close(descriptor)
            raise _taken(file, holder) from error
        if _is_at(file, descriptor):
            # Whom a second run should name; on a full disk it is only told that there is one.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
            return descriptor
        os.close(descriptor)


def _is_at(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _taken(file: Path, holder: bytes) -> UsageError:
    try:
        told = json.loads(holder)
        whose = f"process {told['pid']} on {told['host']}"
    except (ValueError, KeyError, TypeError):
        whose = "another process"
    return UsageError(
        f"{file.parent} is in use: {whose} runs in it", fix="wait until it ends, stop it, or name another folder"
    )
