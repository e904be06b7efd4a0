"""The composition root: plan -> parts -> wired run -> outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from xtuner_core.composition import Composition
from xtuner_core.contracts.device import DeviceFacts
from xtuner_core.contracts.observer import Observer, RunEnd, RunStart
from xtuner_core.engine.best import Best, flat
from xtuner_core.engine.blame import blame
from xtuner_core.engine.build import Wired, wire
from xtuner_core.engine.checkpoint.keep import ranked
from xtuner_core.engine.checkpoint.layout import MODEL, checkpoints
from xtuner_core.engine.checkpoint.manifest import Score, read_score
from xtuner_core.engine.checkpoint.saved import read_checkpoint
from xtuner_core.engine.checkpoint.saver import Saver
from xtuner_core.engine.checkpoint.state import RunState, load_weights, optimized_tensors
from xtuner_core.engine.deadline import TIME_LIMIT, Clock, Deadline
from xtuner_core.engine.engine import Engine
from xtuner_core.engine.folder import write_json
from xtuner_core.engine.handle import RunHandle
from xtuner_core.engine.home import Home, opened_home
from xtuner_core.engine.inputs import is_deterministic, opened_device
from xtuner_core.engine.loop import Loop
from xtuner_core.engine.metrics import Meter
from xtuner_core.engine.observers import ObserverFailure, Observers, make_watchers
from xtuner_core.engine.process import default_dtype, determinism, device_seeded, seeded, sole_run, stopped_by_signals
from xtuner_core.engine.profile import Profiler
from xtuner_core.engine.stopwatch import Stopwatch
from xtuner_core.engine.summary import end_summary, failure_summary, start_summary
from xtuner_core.errors import UsageError
from xtuner_core.hf.write import export
from xtuner_core.host import Host
from xtuner_core.logs import LogFormat, run_log
from xtuner_core.parts import Parts
from xtuner_core.plan import Plan

__all__ = ["Outcome", "RunHandle", "run"]

HASTY = ("SIGTERM", TIME_LIMIT)
"""Reasons to stop after which a process has little time left: enough for a checkpoint, which holds the weights."""


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


def run(
    plan: Plan | Composition,
    *,
    host: Host | None = None,
    observers: Sequence[Observer] = (),
    handle: RunHandle | None = None,
    folder: Path | str | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    log_format: LogFormat = "console",
) -> Outcome:
    """Run a plan in this process, and put back all that is the process's.

    :param plan: frozen, or a composition of which it is taken.
    :param host: holds the plan's plugins, active; may be left out with a composition.
    :param observers: of the caller's own, beside those of the plan.
    :param handle: stops the run from another thread.
    :param folder: of the run; None makes one under `output`.
    :param resume: go on from the newest good checkpoint in `folder`, and begin where there is none; without a
        folder, in the newest unfinished run under `output` that was asked for the same.
    :param accept_changes: go on even if plugins or configuration are others than those of the run there.
    :param log_format: of warnings and errors on standard error.
    :raises XTunerCoreError: it cannot be wired, or could not go on. Whatever is raised carries as notes in
        which plugin it arose, and the plugins' hints.
    """
    start = perf_counter()
    if isinstance(plan, Composition):
        host, plan = plan.host, plan.require()
    assert host is not None, "a plan runs on the host that holds its plugins"
    parts, handle = Parts(plan, host), RunHandle() if handle is None else handle
    place = opened_home(
        plan,
        output=Path(parts.core.output),
        folder=None if folder is None else Path(folder),
        resume=resume,
        accept_changes=accept_changes,
    )
    with sole_run(handle), stopped_by_signals(handle), place as home:
        if home.done is not None:
            return _nothing_to_do(home)
        try:
            with (
                default_dtype(torch.float32),
                seeded(parts.core.seed),
                run_log(home.folder / "log.jsonl", log_format=log_format) as log,
            ):
                return _Run(parts, home, handle, observers, log.bind(rank=0), start).go()
        except BaseException as error:
            for note in (blame(error, host), *(hint.text for hint in host.explain(error, plan))):
                if note is not None:
                    error.add_note(note)
            with suppress(UsageError):  # a full disk must not hide why the run failed
                write_json(home.folder / "summary.json", failure_summary(error))
            raise


def _nothing_to_do(home: Home) -> Outcome:
    assert home.done is not None
    return Outcome(
        status="finished",
        steps=int(home.done.get("steps", 0)),
        folder=home.folder,
        summary=home.done,
        observer_failures=(),
        checkpoint=next(iter(checkpoints(home.folder)), None),
        nothing_to_do=True,
    )


class _Run:
    """One run, from the open device to the outcome."""

    def __init__(
        self,
        parts: Parts,
        home: Home,
        handle: RunHandle,
        observers: Sequence[Observer],
        log: Any,
        start: float,
    ) -> None:
        self._parts = parts
        self._home = home
        self._handle = handle
        self._log = log
        self._engine: Engine | None = None
        self._overhead = Stopwatch()
        self._clock = Clock(start)
        watchers = make_watchers(parts, home.folder, observers)
        self._observers = Observers(watchers, report=self._report, stopwatch=self._overhead)

    def go(self) -> Outcome:
        """Wire, train, evaluate, export; whatever happens, the observers are told how it ended."""
        parts = self._parts
        for notice in self._home.notices:
            self._log.warning(notice.event, **notice.values)
        try:
            with (
                opened_device(parts) as (device, facts),
                determinism(is_deterministic(parts, device)),
                device_seeded(parts.core.seed, device),
            ):
                found = self._home.checkpoint
                weights = None if found is None else found / MODEL
                return self._train(wire(parts, device, self._home.folder, self._warn, weights), facts)
        except BaseException as error:
            self._tell_end("failed", {"error": f"{type(error).__name__}: {error}"})
            raise

    def _train(self, wired: Wired, facts: DeviceFacts) -> Outcome:
        home, steps = self._home, wired.algorithm.steps
        self._engine = wired.engine
        loop, state = self._loop(wired, facts)
        saved = None if home.checkpoint is None else read_checkpoint(home.checkpoint)
        if saved is not None:
            state.restore(saved)
        summary = start_summary(self._parts, wired, facts, resumed=home.resumed)
        self._log.info("run started", steps=steps, steps_done=home.steps_done, **summary)
        start = RunStart(folder=home.folder, steps=steps, steps_done=home.steps_done, summary=summary)
        self._observers.on_start(start)
        if saved is not None:
            state.restore_random(saved)
        return self._finish(loop) if loop.run() else self._stop(loop)

    def _loop(self, wired: Wired, facts: DeviceFacts) -> tuple[Loop, RunState]:
        core, engine, steps = self._parts.core, wired.engine, wired.algorithm.steps
        meter = Meter(config=self._parts.config("model"), engine=engine, facts=facts, steps=steps)
        best = Best.of(core, self._parts.plan)
        size = 3 * sum(tensor.nbytes for tensor in optimized_tensors(engine).values())
        deadline = Deadline(core.time_limit_seconds, start=self._clock.start, save_bytes=size)
        state = RunState(
            engine=engine,
            algorithm=wired.algorithm,
            tokenizer=wired.tokenizer,
            plan=self._home.plan,
            shard_bytes=core.export.shard_bytes,
            parts={"meter": meter, "best": best, "deadline": deadline, "clock": self._clock},
        )
        profiler = Profiler(core.profile, engine.device, self._home.folder)
        profiler.check(steps)
        loop = Loop(
            wired=wired,
            handle=self._handle,
            observers=self._observers,
            meter=meter,
            saver=Saver(self._home.folder, core.checkpoint, state.take, self._log),
            best=best,
            deadline=deadline,
            profiler=profiler,
            overhead=self._overhead,
            log=self._log,
        )
        return loop, state

    def _stop(self, loop: Loop) -> Outcome:
        """Save, so that the run can go on; export too, unless somebody waits for the process to end."""
        reason = self._handle.reason
        if self._steps_taken:
            loop.saver.save_last(self._steps_taken, loop.score)
        export = None if reason in HASTY else self._export(loop)
        return self._end("stopped", self._counts(loop, reason, export))

    def _finish(self, loop: Loop) -> Outcome:
        if self._parts.core.checkpoint.at_end:
            loop.saver.save_last(self._steps_taken, loop.score)
        found = dict(loop.wired.algorithm.finish())
        score = loop.best.take(self._steps_taken, dict(flat(found)))
        if loop.best.missing:
            loop.saver.save_last(self._steps_taken)
            loop.best.refuse_unseen(found)
        if self._parts.core.export.best:
            self._take_best(loop, score)
        return self._end("finished", {**found, **self._counts(loop, loop.best.exhausted, self._export(loop))})

    def _take_best(self, loop: Loop, score: Score | None) -> None:
        """Give the model the best checkpoint's weights, unless it has better ones now."""
        best = next(iter(ranked(checkpoints(self._home.folder))), None)
        kept = None if best is None else read_score(best)
        if best is not None and kept is not None and (score is None or kept.rank < score.rank):
            self._log.info("the best checkpoint is exported", checkpoint=best.name, value=kept.value)
            load_weights(loop.wired.engine, best / MODEL)

    def _export(self, loop: Loop) -> Path | None:
        settings, wired = self._parts.core.export, loop.wired
        if not settings.enabled:
            return None
        target = self._home.folder / "export"
        return export(
            wired.engine.model,
            target,
            tokenizer=wired.tokenizer,
            shard_bytes=settings.shard_bytes,
            over=self._home.again,
        )

    def _counts(self, loop: Loop, reason: str | None, export: Path | None) -> dict[str, Any]:
        checkpoint = self._checkpoint
        counts = end_summary(
            meter=loop.meter,
            seconds=self._clock.seconds,
            overhead=self._overhead.seconds,
            reason=reason,
            export=export,
        )
        best = loop.best.summary()
        saves = {"save_seconds": loop.saver.seconds, "checkpoint": None if checkpoint is None else str(checkpoint)}
        return {**counts, **saves, "best": best}

    @property
    def _checkpoint(self) -> Path | None:
        return next(iter(checkpoints(self._home.folder)), None)

    @property
    def _steps_taken(self) -> int:
        return self._home.steps_done if self._engine is None else self._engine.steps_taken

    def _end(self, status: str, summary: Mapping[str, Any]) -> Outcome:
        """Write `summary.json`, then tell the log and the observers, after whom nothing is left to fail."""
        failures = [asdict(failure) for failure in self._observers.failures]
        whole = {**summary, "status": status, "steps": self._steps_taken, "observer_failures": failures}
        write_json(self._home.folder / "summary.json", whole)
        self._log.info("run ended", **whole)
        self._tell_end(status, summary)
        return Outcome(
            status=status,
            steps=self._steps_taken,
            folder=self._home.folder,
            summary=whole,
            observer_failures=self._observers.failures,
            checkpoint=self._checkpoint,
        )

    def _tell_end(self, status: str, summary: Mapping[str, Any]) -> None:
        steps, seconds = self._steps_taken, self._clock.seconds
        self._observers.on_end(RunEnd(status=status, steps=steps, seconds=seconds, summary=summary))

    def _warn(self, event: str, values: Mapping[str, Any]) -> None:
        self._log.warning(event, **values)

    def _report(self, failure: ObserverFailure, error: Exception) -> None:
        log = self._log.bind(plugin=failure.plugin, slot="observer")
        log.warning(str(failure), exc_info=error)
