"""A rank that watches itself, where nobody else on its host does: under another's launcher."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

from xtuner_core.engine.ranks.heartbeat import DONE, WAITING, Heartbeat

HUNG = 124
"""Exit code of a rank that ended itself: that of timeout(1)."""
TICKS = 20
"""How often it looks within the limit."""


class Files(Protocol):
    """Where a rank leaves its stacks."""

    @property
    def rank(self) -> int:
        """Which rank."""

    @property
    def stacks(self) -> Path:
        """File of its stacks."""


@contextmanager
def watchdog(heartbeat: Heartbeat, files: Files, limit_seconds: float | None) -> Iterator[None]:
    """End this process, with the stacks of its threads written, when its heartbeat stands still for the limit.

    A rank that waits for an order is not watched: the leading rank, whose order it is, watches itself.

    :param limit_seconds: None watches nothing.
    """
    if limit_seconds is None:
        yield
        return
    over = Event()
    dog = Thread(target=_watch, args=(heartbeat, files, limit_seconds, over), name="watchdog", daemon=True)
    dog.start()
    try:
        yield
    finally:
        over.set()
        dog.join()


def _watch(heartbeat: Heartbeat, files: Files, limit: float, over: Event) -> None:
    seen, since = heartbeat.last.count, time.monotonic()
    while not over.wait(limit / TICKS):
        beat = heartbeat.last
        if beat.count != seen or beat.operation in (WAITING, DONE):
            seen, since = beat.count, time.monotonic()
        elif time.monotonic() - since >= limit:
            _end(heartbeat, files, limit)


def _end(heartbeat: Heartbeat, files: Files, limit: float) -> None:
    with files.stacks.open("ab") as stream:
        faulthandler.dump_traceback(stream, all_threads=True)
    beat = heartbeat.last
    where = f"at step {beat.step}, in {beat.operation}; its stacks are in {files.stacks}"
    print(f"rank {files.rank} has made no progress for {limit:g} s {where}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(HUNG)
