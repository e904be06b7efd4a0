"""What a process that tokenises does: read a shard, write its piece, say so, wait for the next. Imports no torch."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from xtuner_core.data.store.shard import Job, encode_shard
from xtuner_core.errors import XTunerCoreError


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a shard has no piece, as plain data."""

    error: str
    """Name of our exception, or an empty string for any other."""
    message: str
    fix: str = ""
    plugin: str | None = None


def work(connection: Connection, job: Job) -> None:
    """Serve shards until the other end is closed.

    :param connection: shards come in, a `Piece` or a `Failure` goes out for each.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        while True:
            shard = connection.recv()
            try:
                connection.send(encode_shard(job, shard))
            except XTunerCoreError as error:
                connection.send(Failure(type(error).__name__, error.message, error.fix, error.plugin))
            except Exception:  # a plugin's bug; the parent says where it came from
                connection.send(Failure("", traceback.format_exc()))
    except (EOFError, BrokenPipeError):
        return


def _end_with_parent() -> None:
    """End at once when the parent has gone, in the middle of a long text too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
