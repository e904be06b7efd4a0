"""One rank of a run, as a launcher starts it: `python -m xtuner_core.rank [MODULE:FUNCTION] ORDERS`.

Its standard input is the launcher's lifeline (`launch.lifeline`). It ends with 0 where the run finished, 75 where the
run was asked to stop, and 70 where it failed and left its last words.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from xtuner_core.contracts.launcher import Membership, Start
from xtuner_core.engine.handle import RunHandle
from xtuner_core.engine.ranks.heartbeat import DONE, Heartbeat
from xtuner_core.launch.last_words import FAILED
from xtuner_core.launch.lifeline import hold_lifeline
from xtuner_core.launch.orders import read_orders
from xtuner_core.launch.vitals import vitals
from xtuner_core.loading import load
from xtuner_core.worker import replay

WORK = "xtuner_core.wiring:run_rank"
"""What a rank does once the plan is replayed."""
STOPPED = 75
"""Exit code of a rank whose run was asked to stop: EX_TEMPFAIL of sysexits.h, as of the command."""


def main(arguments: Sequence[str]) -> int:
    """Be the rank that a file of orders describes.

    :return: the exit code; does not return where it failed.
    """
    *other, file = arguments
    work = other[0] if other else WORK
    membership, start = read_orders(Path(file))
    handle = RunHandle()
    hold_lifeline(handle.stop)
    _stop_at_signals(handle)
    try:
        with vitals(Path(start.folder), membership.rank) as heartbeat:
            _work(work, membership, start, handle, heartbeat)
            heartbeat.at(heartbeat.last.step, DONE)
    except Exception:
        # At once: the end of an interpreter waits for threads, and these for ranks that wait for this one.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(FAILED)
    return 0 if handle.reason is None else STOPPED


def _work(work: str, membership: Membership, start: Start, handle: RunHandle, heartbeat: Heartbeat) -> None:
    plan, host = replay(start.folder)
    run: Any = load(work, plugin="core", distribution="xtuner-core")
    run(plan, host=host, membership=membership, start=start, handle=handle, heartbeat=heartbeat)


def _stop_at_signals(handle: RunHandle) -> None:
    """A scheduler signals every process of a job; each rank then leaves with the others, after a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: handle.stop(signal.Signals(number).name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
