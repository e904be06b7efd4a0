"""What an observer is: built once, told what happens, read only. Whoever wants to stop a run uses its handle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from xtuner_core.contracts.algorithm import StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """What is known before the first step."""

    folder: Path
    steps: int
    steps_done: int = 0
    """Steps that a resumed run has behind it; what an observer recorded of later ones is void."""
    summary: Mapping[str, Any]
    """Model, parameters, device, precision, operators: plain data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """One step and what the run derives from it."""

    result: StepResult
    steps: int
    tokens_per_second: float
    model_flops_per_second: float
    """Convention of `ModelConfig.flops`: causal half, true packed lengths, no recomputation."""
    mfu: float | None
    """Share of the device's data-sheet peak; None where the peak is not known."""
    memory_peak_bytes: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What the algorithm added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How the run ended."""

    status: str
    """`finished`, `stopped` or `failed`."""
    steps: int
    seconds: float
    summary: Mapping[str, Any]


class Observer(Protocol):
    """One that raises is named, disabled and counted; the run goes on."""

    def on_start(self, start: RunStart) -> None:
        """Before the first step."""

    def on_step(self, step: RunStep) -> None:
        """After each optimizer step."""

    def on_end(self, end: RunEnd) -> None:
        """Once, however the run ended."""


class ObserverFactory(Protocol):
    """What an observer provider's `factory` names."""

    def __call__(self, config: Any, *, folder: Path) -> Observer:
        """Build the observer; `folder` is the run's."""
