"""What came of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtuner_core.engine.observers import ObserverFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run that did not fail."""

    status: str
    """`finished`, or `stopped` through the handle, a signal or the wall-time limit."""
    steps: int
    folder: Path
    summary: Mapping[str, Any]
    """Plain data, also in `summary.json`: what the algorithm found, counts, times, the path of the export."""
    observer_failures: tuple[ObserverFailure, ...]
    checkpoint: Path | None = None
    """The newest that the run can go on from; None where it has none."""
    nothing_to_do: bool = False
    """Whether the run had finished before, so that resuming it did nothing."""
