"""The rank's end of the pipe that its launcher holds: words come through it, and its end is the rank's.

However the launcher ends, SIGKILL included, the system closes the pipe. A rank that is stopped or never gives up
Python's lock cannot hear that; Linux kills it, where it was asked to (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from threading import Thread

STOP = "stop"
"""First word of a line that asks the run to stop; the rest of it is the reason."""
_PR_SET_PDEATHSIG = 1


def hold_lifeline(on_stop: Callable[[str], None]) -> None:
    """Take over standard input, which then is empty for everybody else, and listen to it.

    :param on_stop: called in another thread with the reason.
    """
    pipe = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    Thread(target=_listen, args=(pipe, on_stop), name="lifeline", daemon=True).start()


def _listen(pipe: int, on_stop: Callable[[str], None]) -> None:
    with open(pipe, encoding="utf-8") as lines:
        for line in lines:
            word, _, reason = line.strip().partition(" ")
            if word == STOP:
                on_stop(reason)
    _end_with_children()


def _end_with_children() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
