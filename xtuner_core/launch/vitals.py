"""What makes a process a rank that can be watched: heartbeat, stacks on request, last words."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xtuner_core.engine.ranks.heartbeat import Heartbeat
from xtuner_core.engine.ranks.watchdog import watchdog
from xtuner_core.launch.files import RankFiles
from xtuner_core.launch.last_words import kept_words

STACKS_SIGNAL = signal.SIGUSR1
"""At this a rank writes the stacks of its threads, whatever it is doing."""


@contextmanager
def vitals(run: Path, rank: int, *, limit_seconds: float | None = None) -> Iterator[Heartbeat]:
    """Write down where this process is, and how it fails, in `ranks` of the run's folder.

    :param limit_seconds: for a rank that no supervisor watches: after so long without a beat it writes its stacks
        and ends itself. None leaves that to the supervisor.
    """
    files = RankFiles(run, rank)
    files.heartbeat.parent.mkdir(exist_ok=True)
    for leftover in (files.failure, files.stacks):
        leftover.unlink(missing_ok=True)
    heartbeat = Heartbeat(files.heartbeat)
    with files.stacks.open("ab") as stacks:
        faulthandler.enable(stacks, all_threads=True)
        faulthandler.register(STACKS_SIGNAL, stacks, all_threads=True)
        try:
            with kept_words(run, rank), watchdog(heartbeat, files, limit_seconds):
                yield heartbeat
        finally:
            faulthandler.unregister(STACKS_SIGNAL)
            faulthandler.disable()
            heartbeat.close()
