"""Watching the ranks of one attempt: who dies, who hangs, who is asked to stop; and ending all of them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from xtuner_core.contracts.launcher import RankFailure
from xtuner_core.engine.ranks.heartbeat import DONE
from xtuner_core.launch.child import Child
from xtuner_core.launch.hang import hang_of
from xtuner_core.launch.verdict import death_of

TICK = 0.05
"""Seconds between two looks at the ranks."""
SETTLE = 1.0
"""Seconds in which others may fail because one did, before it is judged which was the first."""


@contextmanager
def ended_after(children: Sequence[Child], grace_seconds: float) -> Iterator[None]:
    """Leave no rank and none of its processes behind, however the block ends.

    :param children: may be added to in the block.
    :param grace_seconds: between SIGTERM and SIGKILL, for ranks that still run when it ends well; none otherwise.
    """
    try:
        yield
        for child in children:
            child.signal(signal.SIGTERM)
        _wait(lambda: not any(child.runs for child in children), grace_seconds)
    finally:
        for child in children:
            child.bury()


def watch(
    children: Sequence[Child], *, stop_reason: Callable[[], str | None], timeout_seconds: float, grace_seconds: float
) -> RankFailure | None:
    """Wait until every rank has ended, or one failed, or all hang; the others are left as they are.

    :param stop_reason: as `Job.stop_reason`; passed on to rank 0 once.
    :param timeout_seconds: without a beat of any rank after which they count as hung.
    :param grace_seconds: for ranks whose work is done to end their processes.
    """
    told, pulse = False, _Stillness(children)
    while any(child.runs for child in children):
        if any(child.failed for child in children):
            break
        reason = None if told else stop_reason()
        if reason is not None:
            children[0].ask_to_stop(reason)
            told = True
        still = pulse.seconds()
        if still >= grace_seconds and _are_done(children):
            return None
        if still >= timeout_seconds:
            return hang_of(children, timeout_seconds)
        time.sleep(TICK)
    if not any(child.failed for child in children):
        return None
    _wait(lambda: not any(child.runs for child in children), SETTLE)
    return death_of(children)


class _Stillness:
    """How long no rank was heard of."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self._seen: list[object] = []
        self._since = time.monotonic()

    def seconds(self) -> float:
        """Since the last beat of any rank, or the last end of one."""
        now = [(child.beat, child.code) for child in self._children]
        if now != self._seen:
            self._seen, self._since = [*now], time.monotonic()
        return time.monotonic() - self._since


def _are_done(children: Sequence[Child]) -> bool:
    beats = [child.beat for child in children if child.runs]
    return all(beat is not None and beat.operation == DONE for beat in beats)


def _wait(until: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        time.sleep(TICK)
