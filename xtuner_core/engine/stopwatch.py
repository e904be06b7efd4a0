"""A stopwatch: how long a run spends on telling about itself."""

from __future__ import annotations

from time import perf_counter


class Stopwatch:
    """Adds up the time of the blocks that it is entered for."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.seconds += perf_counter() - self._start
