"""Where a rank is: a small file that it writes at every operation, and that whoever watches it reads. Imports no torch.

Writing takes a few microseconds and waits for nothing, so that it may stand in the middle of a step.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_RECORD = struct.Struct("<qqd40s")
_NAME_BYTES = 40

STARTING = "start"
"""Operation of a rank that was started and has not begun to work."""
WAITING = "waiting for an order"
"""Operation of a rank that has nothing to do until the leading one gives it something; it may last."""
DONE = "done"
"""Operation of a rank that has nothing left to do but to end its process."""


@dataclass(frozen=True, slots=True)
class Beat:
    """Where a rank was when it was last heard of."""

    count: int
    """Beats before it in this process."""
    step: int
    """Optimizer steps taken before."""
    time: float
    """Seconds since the epoch."""
    operation: str


class Pulse(Protocol):
    """Is told where a rank is."""

    def at(self, step: int, operation: str) -> None:
        """Note that an operation begins.

        :param step: optimizer steps taken before.
        """


class NoHeartbeat:
    """Of a rank that nobody watches."""

    def at(self, step: int, operation: str) -> None:
        """Note nothing."""


class Heartbeat:
    """Of this process, in a file.

    :param file: made, or emptied; its folder is there.
    """

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self.last = Beat(-1, 0, 0.0, STARTING)
        self.at(0, STARTING)

    def at(self, step: int, operation: str) -> None:
        """Note that an operation begins; its name is cut at 40 bytes."""
        beat = Beat(self.last.count + 1, step, time.time(), operation)
        self.last = beat
        record = _RECORD.pack(beat.count, step, beat.time, operation.encode()[:_NAME_BYTES])
        with suppress(OSError):  # a full disk must not end a run because nobody can see where it is
            os.pwrite(self._descriptor, record, 0)

    def close(self) -> None:
        """Give the file back; the last beat stays in it."""
        os.close(self._descriptor)


def read_beat(file: Path) -> Beat | None:
    """The last beat that was written to a file; None where there is none yet."""
    try:
        record = file.read_bytes()
    except OSError:
        return None
    if len(record) != _RECORD.size:
        return None
    count, step, seconds, name = _RECORD.unpack(record)
    return Beat(count, step, seconds, name.rstrip(b"\0").decode(errors="replace"))
