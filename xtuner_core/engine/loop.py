"""The steps of a run, one after the other, and what happens between two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.engine.best import Best
from xtuner_core.engine.build import Wired
from xtuner_core.engine.checkpoint.manifest import Score
from xtuner_core.engine.deadline import TIME_LIMIT, Deadline
from xtuner_core.engine.handle import RunHandle
from xtuner_core.engine.metrics import Meter
from xtuner_core.engine.observers import Observers
from xtuner_core.engine.profile import Profiler
from xtuner_core.engine.saving import Saving
from xtuner_core.engine.stopwatch import Stopwatch


@dataclass(kw_only=True)
class Loop:
    """Takes steps until there are none left, none is wanted any more, or a stop is asked for."""

    wired: Wired
    handle: RunHandle
    observers: Observers
    meter: Meter
    saver: Saving
    best: Best
    deadline: Deadline
    profiler: Profiler
    overhead: Stopwatch
    log: Any
    score: Score | None = None
    """Of the step that was taken last; None where it was not evaluated."""

    def run(self) -> bool:
        """Take the steps; says whether the run is through rather than stopped.

        :raises RunError: it cannot go on.
        """
        engine, algorithm = self.wired.engine, self.wired.algorithm
        batches = iter(algorithm.batches())
        while self.handle.reason is None:
            begun = perf_counter()
            batch = next(batches, None)
            if batch is None:
                return True
            waited = perf_counter() - begun
            with self.profiler.watching(engine.steps_taken + 1):
                result = engine.step(batch, steps=algorithm.steps)
            more = algorithm.after_step(result)
            self._tell(result, batch, waited, more)
            self.deadline.stepped(perf_counter() - begun)
            self._rank_and_save(result.step, more)
            if self.best.exhausted:
                return True
            if engine.stops:
                self.handle.stop("SIGTERM")
            if self.deadline.near:
                self.handle.stop(TIME_LIMIT)
        return False

    def _tell(self, result: StepResult, batch: Sequence[PackedBatch], waited: float, more: Mapping[str, float]) -> None:
        with self.overhead:
            more = {**more, "seconds.save": self.saver.reported()}
            step = self.meter.step(result, batch, waited=waited, more=more)
            if result.skipped:
                self.log.warning("step skipped: loss or gradient is not finite", step=result.step, reason=result.reason)
        # Before a save: what a checkpoint counts as done has been told.
        self.observers.on_step(step)

    def _rank_and_save(self, step: int, metrics: Mapping[str, float]) -> None:
        self.score = self.best.take(step, metrics)
        # After the last step the export holds the same weights.
        improved = self.score is not None and self.best.step == step and step < self.wired.algorithm.steps
        if self.saver.due(step, improved=improved):
            seconds = self.saver.save(step, self.score)
            if seconds is not None:
                self.deadline.saved(seconds)
