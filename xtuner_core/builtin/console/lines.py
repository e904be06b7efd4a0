"""Structured lines: an event and its values, as text or as JSON."""

from __future__ import annotations

from typing import Any, TextIO

import structlog

from xtuner_core.contracts.observer import RunEnd, RunStart, RunStep

LINES_A_RUN = 20


class Lines:
    """Writes the first step, the last, and those between whose number `every` divides."""

    def __init__(self, stream: TextIO, *, every: int | None, json: bool) -> None:
        self._log = logger(stream, json=json)
        self._every = every

    def start(self, start: RunStart) -> None:
        """Write what is about to run."""
        self._every = self._every or max(1, start.steps // LINES_A_RUN)
        self._log.info("run started", folder=str(start.folder), steps=start.steps, **_scalars(start.summary))

    def step(self, step: RunStep) -> None:
        """Write a step."""
        number = step.result.step
        if number == 1 or number == step.steps or number % (self._every or 1) == 0:
            self._log.info("step", **figures(step))

    def end(self, end: RunEnd) -> None:
        """Write how it ended."""
        self._log.info("run ended", status=end.status, steps=end.steps, seconds=round(end.seconds, 1))


def figures(step: RunStep) -> dict[str, Any]:
    """Pick the figures that a person looks at, rounded."""
    result = step.result
    shown: dict[str, Any] = {
        "step": result.step,
        "steps": step.steps,
        "loss": round(result.loss, 4),
        "grad_norm": round(result.grad_norm, 3),
        "learning_rate": float(f"{result.learning_rate:.3g}"),
        "tokens_per_second": round(step.tokens_per_second),
    }
    if step.mfu is not None:
        shown["mfu"] = round(step.mfu, 4)
    more = {**result.auxiliary, **step.metrics}.items()
    # Figures of single layers end in a number; they and the host's times are for the files.
    told = {name: value for name, value in more if not (name[-1].isdecimal() or name.startswith("seconds."))}
    return shown | {name: float(f"{value:.4g}") for name, value in told.items()}


def logger(stream: TextIO, *, json: bool) -> Any:
    """Make a structlog logger of this observer alone; the process's configuration stays as it is."""
    render = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], drop_missing=True)
    )
    return structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        wrapper_class=structlog.BoundLogger,
    )


def _scalars(values: Any) -> dict[str, Any]:
    return {str(key): value for key, value in values.items() if isinstance(value, (str, int, float, bool))}
