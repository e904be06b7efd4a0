"""Wall time: what a run has taken with all its parts, and when to stop so that a checkpoint is there in time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from time import perf_counter
from typing import Any

TIME_LIMIT = "time_limit_seconds"
"""Reason of a run that its own limit stopped."""
MARGIN = 0.02
"""Share of the limit that is kept free for what nobody measured, 60 seconds at most."""
UNKNOWN_SAVE = 1.0
"""Seconds that a save is taken to need before one was measured, beside its bytes."""
SLOW_DISK = 200e6
"""Bytes a second that a disk is trusted to take before a save was measured."""
_STEPS = 20


class Clock:
    """Wall time of a run, the parts before a resume included.

    :param start: of this part, as `perf_counter` counts.
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self._before = 0.0

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._before + perf_counter() - self.start

    def state_dict(self) -> dict[str, Any]:
        """The seconds."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count from there."""
        self._before = state["seconds"]


class Deadline:
    """Knows how long steps and saves take, and says when another step would be one too many.

    :param seconds: wall time from `start`; None sets no limit.
    :param start: of this part of the run, as `perf_counter` counts.
    :param save_bytes: roughly what a checkpoint holds.
    """

    def __init__(self, seconds: float | None, *, start: float, save_bytes: int) -> None:
        self._end = None if seconds is None else start + seconds - min(60.0, MARGIN * seconds)
        self._steps: deque[float] = deque(maxlen=_STEPS)
        self._assumed = UNKNOWN_SAVE + save_bytes / SLOW_DISK
        self._longest_save: float | None = None

    def stepped(self, seconds: float) -> None:
        """Take note of a step with its evaluation, a save left out."""
        self._steps.append(seconds)

    def saved(self, seconds: float) -> None:
        """Take note of a save."""
        self._longest_save = max(self._longest_save or 0.0, seconds)

    @property
    def near(self) -> bool:
        """Whether another step, and half as much again as the longest save, might not fit."""
        if self._end is None:
            return False
        save = self._assumed if self._longest_save is None else self._longest_save
        return perf_counter() + max(self._steps, default=0.0) + 1.5 * save >= self._end

    def state_dict(self) -> dict[str, Any]:
        """The longest save."""
        return {"longest_save": self._longest_save}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Trust what an earlier part of the run measured."""
        self._longest_save = state["longest_save"]
