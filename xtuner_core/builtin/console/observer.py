"""The observer console: one of two displays while the run goes, and a summary at its end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol, TextIO

from xtuner_core.builtin.console.config import ConsoleConfig
from xtuner_core.builtin.console.lines import Lines
from xtuner_core.builtin.console.progress import Bar
from xtuner_core.builtin.console.summary import as_json, as_text
from xtuner_core.contracts.observer import RunEnd, RunStart, RunStep


class Display(Protocol):
    """What shows a run while it goes."""

    def start(self, start: RunStart) -> None:
        """Before the first step."""

    def step(self, step: RunStep) -> None:
        """After a step."""

    def end(self, end: RunEnd) -> None:
        """After the last step."""


class ConsoleObserver:
    """Progress goes to `err`, the summary to `out`."""

    def __init__(self, display: Display, *, json: bool, out: TextIO) -> None:
        self._display = display
        self._json = json
        self._out = out

    def on_start(self, start: RunStart) -> None:
        """Show what is about to run."""
        self._display.start(start)

    def on_step(self, step: RunStep) -> None:
        """Show a step, where it is time to."""
        self._display.step(step)

    def on_end(self, end: RunEnd) -> None:
        """Show how it ended, and what came of it."""
        self._display.end(end)
        self._out.write((as_json(end) if self._json else as_text(end)) + "\n")
        self._out.flush()


def build(
    config: ConsoleConfig, *, folder: Path, err: TextIO | None = None, out: TextIO | None = None
) -> ConsoleObserver:
    """Build the observer; streams are those of the process unless given."""
    del folder
    err, out = err or sys.stderr, out or sys.stdout
    json = config.format == "json"
    bar = config.format == "auto" and err.isatty()
    display: Display = Bar(err) if bar else Lines(err, every=config.every, json=json)
    return ConsoleObserver(display, json=json, out=out)
