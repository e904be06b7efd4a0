"""A progress bar on a terminal."""

from __future__ import annotations

from time import monotonic
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xtuner_core.contracts.observer import RunEnd, RunStart, RunStep

SECONDS_BETWEEN_DRAWINGS = 0.25
"""A drawing takes about a millisecond: four a second stay far below 1 % of the time."""


class Bar:
    """Steps done, loss, tokens a second and time left. Drawn by the steps themselves, without a thread."""

    def __init__(self, stream: TextIO) -> None:
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(file=stream),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("train", total=None, figures="")
        self._drawn = 0.0

    def start(self, start: RunStart) -> None:
        """Say what is about to run, and draw the empty bar."""
        shown = (f"{key} {value}" for key, value in start.summary.items() if isinstance(value, (str, int)))
        self._progress.console.print(" · ".join(shown), markup=False, highlight=False)
        self._progress.update(self._task, total=start.steps, completed=start.steps_done)
        self._progress.start()

    def step(self, step: RunStep) -> None:
        """Draw again, at most four times a second."""
        now = monotonic()
        if now - self._drawn < SECONDS_BETWEEN_DRAWINGS and step.result.step < step.steps:
            return
        self._drawn = now
        figures = f"loss {step.result.loss:.3f}  {step.tokens_per_second:,.0f} tokens/s"
        self._progress.update(self._task, completed=step.result.step, figures=figures, refresh=True)

    def end(self, end: RunEnd) -> None:
        """Leave the bar as it stands."""
        del end
        self._progress.stop()
