"""One part of a run, from the open device to the outcome: the whole of it, or what follows a resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xtuner_core.contracts.device import Device, DeviceFacts
from xtuner_core.contracts.observer import Observer, RunEnd, RunStart
from xtuner_core.engine.best import Best, flat
from xtuner_core.engine.build import Watch, Wired, wire
from xtuner_core.engine.checkpoint.keep import ranked
from xtuner_core.engine.checkpoint.layout import MODEL, checkpoints
from xtuner_core.engine.checkpoint.manifest import read_score
from xtuner_core.engine.checkpoint.saved import read_checkpoint
from xtuner_core.engine.checkpoint.saver import Saver
from xtuner_core.engine.checkpoint.state import RunState, moment_parts
from xtuner_core.engine.deadline import TIME_LIMIT, Clock, Deadline
from xtuner_core.engine.engine import Engine
from xtuner_core.engine.folder import write_json
from xtuner_core.engine.handle import RunHandle
from xtuner_core.engine.home import Home
from xtuner_core.engine.inputs import is_deterministic, opened_device
from xtuner_core.engine.loop import Loop
from xtuner_core.engine.metrics import Meter
from xtuner_core.engine.observers import ObserverFailure, Observers, make_watchers
from xtuner_core.engine.outcome import Outcome
from xtuner_core.engine.process import determinism, device_seeded
from xtuner_core.engine.profile import Profiler
from xtuner_core.engine.ranks.crew import END, Crew
from xtuner_core.engine.ranks.meeting import made_crew
from xtuner_core.engine.ranks.place import PREPARING, Place, home_data
from xtuner_core.engine.ranks.world import compare_plans
from xtuner_core.engine.saving import Saving
from xtuner_core.engine.stopwatch import Stopwatch
from xtuner_core.engine.summary import end_summary, start_summary
from xtuner_core.errors import RunStopped
from xtuner_core.parts import Parts

HASTY = ("SIGTERM", TIME_LIMIT)
"""Reasons to stop after which a process has little time left: enough for a checkpoint, which holds the weights."""


class Session:
    """One part of a run, from the open device to the outcome.

    On several ranks it is the one that leads; the others follow it (`engine.follower`).

    :param place: of this rank.
    :param log: of the run.
    :param start: of this part, as `perf_counter` counts.
    """

    def __init__(
        self,
        parts: Parts,
        home: Home,
        handle: RunHandle,
        place: Place,
        observers: Sequence[Observer],
        log: Any,
        start: float,
    ) -> None:
        self._parts = parts
        self._home = home
        self._handle = handle
        self._place = place
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
                opened_device(parts, self._place.membership.local_rank) as (device, facts),
                determinism(is_deterministic(parts, device)),
                device_seeded(parts.core.seed, device),
                self._place.joined(device, parts.core.ranks.timeout_seconds) as world,
            ):
                compare_plans(world, parts.plan)
                world.control.share(home_data(self._home))
                return self._lead(device, facts, made_crew(parts, device, world))
        except BaseException as error:
            self._tell_end("failed", {"error": f"{type(error).__name__}: {error}"})
            raise

    def _lead(self, device: Device, facts: DeviceFacts, crew: Crew) -> Outcome:
        try:
            outcome = self._train(self._wire(device, crew), facts)
        except RunStopped:
            outcome = self._end("stopped", {"reason": self._handle.reason})
        crew.order(END, status=outcome.status, steps=outcome.steps)
        return outcome

    def _wire(self, device: Device, crew: Crew) -> Wired:
        found = self._home.checkpoint
        weights = None if found is None else found / MODEL
        watch = Watch(stopping=self._stopping, pulse=self._place.pulse)
        return wire(self._parts, device, self._home.folder, self._warn, watch, weights, crew)

    def _stopping(self) -> str | None:
        self._place.pulse.at(self._steps_taken, PREPARING)
        return self._handle.reason

    def _train(self, wired: Wired, facts: DeviceFacts) -> Outcome:
        home, steps = self._home, wired.algorithm.steps
        self._engine = wired.engine
        loop, state = self._loop(wired, facts)
        boxes = None if wired.engine.crew.world.alone else moment_parts(wired.engine)
        saved = None if home.checkpoint is None else read_checkpoint(home.checkpoint, boxes)
        if saved is not None:
            state.restore(saved)
        summary = start_summary(self._parts, wired, facts, resumed=home.resumed)
        self._log.info("run started", steps=steps, steps_done=home.steps_done, **summary)
        start = RunStart(folder=home.folder, steps=steps, steps_done=home.steps_done, summary=summary)
        self._observers.on_start(start)
        if saved is not None:
            state.restore_random(saved)
        try:
            return self._finish(loop) if loop.run() else self._stop(loop)
        finally:
            loop.saver.leave()

    def _loop(self, wired: Wired, facts: DeviceFacts) -> tuple[Loop, RunState]:
        core, engine, steps = self._parts.core, wired.engine, wired.algorithm.steps
        meter = Meter(config=self._parts.config("model"), engine=engine, facts=facts, steps=steps)
        best = Best.of(core, self._parts.plan)
        size = 3 * sum(part.tensor.nbytes for part in engine.parts().values())
        deadline = Deadline(core.time_limit_seconds, start=self._clock.start, save_bytes=size)
        state = RunState(
            engine=engine,
            algorithm=wired.algorithm,
            tokenizer=wired.tokenizer,
            plan=self._home.plan,
            shard_bytes=core.export.shard_bytes,
            parts={"meter": meter, "best": best, "deadline": deadline, "clock": self._clock},
            log=self._log,
        )
        profiler = Profiler(core.profile, engine.device, self._home.folder)
        profiler.check(steps)
        loop = Loop(
            wired=wired,
            handle=self._handle,
            observers=self._observers,
            meter=meter,
            saver=self._saving(wired, state),
            best=best,
            deadline=deadline,
            profiler=profiler,
            overhead=self._overhead,
            log=self._log,
        )
        return loop, state

    def _saving(self, wired: Wired, state: RunState) -> Saving:
        core, folder, world = self._parts.core, self._home.folder, wired.engine.crew.world
        saver = Saver(
            folder,
            core.checkpoint,
            state.take,
            self._log,
            world.control,
            background=world.background,
            device=wired.engine.device,
        )
        return Saving(
            wired.engine,
            saver,
            folder,
            tokenizer=wired.tokenizer,
            shard_bytes=core.export.shard_bytes,
            again=self._home.again,
        )

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
        loop.saver.settle()
        found = dict(loop.wired.algorithm.finish())
        loop.best.take(self._steps_taken, dict(flat(found)))
        if loop.best.missing:
            loop.saver.save_last(self._steps_taken)
            loop.best.refuse_unseen(found)
        if self._parts.core.export.best:
            self._take_best(loop)
        return self._end("finished", {**found, **self._counts(loop, loop.best.exhausted, self._export(loop))})

    def _take_best(self, loop: Loop) -> None:
        """Give the model the best checkpoint's weights, unless it has better ones now."""
        best = next(iter(ranked(checkpoints(self._home.folder))), None)
        kept = None if best is None else read_score(best)
        score = loop.best.score_of(self._steps_taken)
        if best is not None and kept is not None and (score is None or kept.rank < score.rank):
            self._log.info("the best checkpoint is exported", checkpoint=best.name, value=kept.value)
            loop.saver.load(best / MODEL)

    def _export(self, loop: Loop) -> Path | None:
        return loop.saver.export() if self._parts.core.export.enabled else None

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
