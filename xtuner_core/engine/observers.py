"""Those who watch a run: told what happens, and unable to harm it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtuner_core.contracts.observer import Observer, RunEnd, RunStart, RunStep
from xtuner_core.engine.stopwatch import Stopwatch
from xtuner_core.parts import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """An observer and where it comes from."""

    entry: str
    """Key that chose it (`observer.console`), or the class of one that the caller passed."""
    plugin: str | None
    observer: Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverFailure:
    """An observer that raised, and was told nothing from then on."""

    entry: str
    plugin: str | None
    event: str
    """`on_start`, `on_step` or `on_end`."""
    error: str

    def __str__(self) -> str:
        whose = f" of plugin {self.plugin!r}" if self.plugin else ""
        return f"{self.entry}{whose} is disabled: it raised in {self.event}: {self.error}"


class Observers:
    """A fixed number of observers; one that raises is named, disabled and counted, and the run goes on.

    :param report: is given every failure, and the exception, as it happens.
    :param stopwatch: counts the time spent in observers.
    """

    def __init__(
        self,
        watchers: Sequence[Watcher],
        *,
        report: Callable[[ObserverFailure, Exception], None],
        stopwatch: Stopwatch,
    ) -> None:
        self._watchers = tuple(watchers)
        self._report = report
        self._stopwatch = stopwatch
        self._disabled: set[int] = set()
        self._failures: list[ObserverFailure] = []

    @property
    def failures(self) -> tuple[ObserverFailure, ...]:
        """In the order in which they happened; one an observer at most."""
        return tuple(self._failures)

    def on_start(self, start: RunStart) -> None:
        """Tell everyone that the run begins."""
        self._tell("on_start", start)

    def on_step(self, step: RunStep) -> None:
        """Tell everyone of a step."""
        self._tell("on_step", step)

    def on_end(self, end: RunEnd) -> None:
        """Tell everyone how the run ended; only the first call tells anything, and nothing follows it."""
        self._tell("on_end", end)
        self._disabled.update(range(len(self._watchers)))

    def _tell(self, event: str, news: Any) -> None:
        with self._stopwatch:
            for index, watcher in enumerate(self._watchers):
                if index in self._disabled:
                    continue
                try:
                    getattr(watcher.observer, event)(news)
                except Exception as error:
                    self._disable(index, event, error)

    def _disable(self, index: int, event: str, error: Exception) -> None:
        watcher = self._watchers[index]
        self._disabled.add(index)
        text = f"{type(error).__name__}: {error}"
        failure = ObserverFailure(entry=watcher.entry, plugin=watcher.plugin, event=event, error=text)
        self._failures.append(failure)
        self._report(failure, error)


def make_watchers(parts: Parts, folder: Path, passed: Sequence[Observer]) -> list[Watcher]:
    """Build the observers that a plan picks, and join those that the caller passed.

    :param folder: the run's.
    """
    picked = [
        Watcher(entry=pick.key, plugin=pick.plugin, observer=parts.make(pick.key, folder=folder))
        for pick in parts.plan.picked("observer")
    ]
    return picked + [Watcher(entry=type(item).__qualname__, plugin=None, observer=item) for item in passed]
