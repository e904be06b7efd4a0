"""Ranks that make no progress: which one the others wait for, and what each is doing."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from xtuner_core.contracts.launcher import RankFailure
from xtuner_core.engine.ranks.heartbeat import WAITING
from xtuner_core.launch.child import Child
from xtuner_core.launch.vitals import STACKS_SIGNAL
from xtuner_core.launch.words import ending, place

STACKS_SECONDS = 5.0
"""How long ranks have to write their stacks."""
_QUIET = 0.3


def hang_of(children: Sequence[Child], timeout_seconds: float) -> RankFailure:
    """Tell which rank hangs, with the stacks of all; those that were stopped run on to write theirs."""
    stopped = [child.rank for child in children if child.is_stopped]
    said = [_state(child, stopped) for child in children]
    culprit = min(children, key=lambda child: _order(child, stopped))
    _collect_stacks(children)
    message = f"no rank has made progress for {timeout_seconds:g} s: rank {culprit.rank} {said[culprit.rank]}"
    details = "\n\n".join(f"rank {child.rank} {said[child.rank]}\n{_stacks(child)}" for child in children)
    return RankFailure(rank=culprit.rank, message=message, details=details)


def _state(child: Child, stopped: Sequence[int]) -> str:
    if child.code is not None:
        return f"{ending(child.code)}, {place(child.beat)}"
    how = "is stopped (SIGSTOP or a debugger)" if child.rank in stopped else "stands still"
    return f"{how} {place(child.beat)}"


def _order(child: Child, stopped: Sequence[int]) -> tuple[bool, bool, float]:
    """One that the system has stopped; else the one heard of longest ago of those that do not wait for orders."""
    beat = child.beat
    waits = child.code is not None or (beat is not None and beat.operation == WAITING)
    return child.rank not in stopped, waits, 0.0 if beat is None else beat.time


def _collect_stacks(children: Sequence[Child]) -> None:
    """Have every rank write its stacks, and wait until nothing is added any more."""
    asked = [child for child in children if child.runs and child.beat is not None]
    sizes = [_size(child) for child in asked]
    for child in asked:
        # The signal is pending when a stopped rank goes on, so its stacks are those at which it was stopped.
        child.signal(STACKS_SIGNAL)
        child.signal(signal.SIGCONT)
    end, seen, since = time.monotonic() + STACKS_SECONDS, sizes, time.monotonic()
    while time.monotonic() < end:
        now = [_size(child) for child in asked]
        if now != seen:
            seen, since = now, time.monotonic()
        elif all(a > b for a, b in zip(now, sizes, strict=True)) and time.monotonic() - since >= _QUIET:
            return
        time.sleep(_QUIET / 10)


def _size(child: Child) -> int:
    try:
        return child.files.stacks.stat().st_size
    except OSError:
        return 0


def _stacks(child: Child) -> str:
    try:
        text = child.files.stacks.read_text(encoding="utf-8", errors="replace").rstrip()
    except OSError:
        text = ""
    return text or "(it has written no stacks)"
