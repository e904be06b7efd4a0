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
from xtuner_core.engine.blame import blame
from xtuner_core.engine.build import Wired, wire
from xtuner_core.engine.folder import make_folder, use_folder, write_json, write_text
from xtuner_core.engine.handle import RunHandle
from xtuner_core.engine.inputs import is_deterministic, opened_device
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run that did not fail."""

    status: str
    """`finished`, or `stopped` through the handle or a signal."""
    steps: int
    folder: Path
    summary: Mapping[str, Any]
    """Plain data, also in `summary.json`: what the algorithm found, counts, times, the path of the export."""
    observer_failures: tuple[ObserverFailure, ...]


def run(
    plan: Plan | Composition,
    *,
    host: Host | None = None,
    observers: Sequence[Observer] = (),
    handle: RunHandle | None = None,
    folder: Path | str | None = None,
    log_format: LogFormat = "console",
) -> Outcome:
    """Run a plan in this process, and put back all that is the process's.

    :param plan: frozen, or a composition of which it is taken.
    :param host: holds the plan's plugins, active; may be left out with a composition.
    :param observers: of the caller's own, beside those of the plan.
    :param handle: stops the run from another thread.
    :param folder: of the run; None makes one under `output`.
    :param log_format: of warnings and errors on standard error.
    :raises XTunerCoreError: it cannot be wired, or could not go on. Whatever is raised carries as notes in
        which plugin it arose, and the plugins' hints.
    """
    if isinstance(plan, Composition):
        host, plan = plan.host, plan.require()
    assert host is not None, "a plan runs on the host that holds its plugins"
    parts, handle = Parts(plan, host), RunHandle() if handle is None else handle
    home = make_folder(Path(parts.core.output), _label(plan)) if folder is None else use_folder(Path(folder))
    write_text(home / "plan.json", plan.to_json())
    try:
        with (
            sole_run(handle),
            stopped_by_signals(handle),
            default_dtype(torch.float32),
            seeded(parts.core.seed),
            run_log(home / "log.jsonl", log_format=log_format) as log,
        ):
            return _Run(parts, home, handle, observers, log.bind(rank=0)).go()
    except BaseException as error:
        for note in (blame(error, host), *(hint.text for hint in host.explain(error, plan))):
            if note is not None:
                error.add_note(note)
        with suppress(UsageError):  # a full disk must not hide why the run failed
            write_json(home / "summary.json", failure_summary(error))
        raise


class _Run:
    """One run, from the open device to the outcome."""

    def __init__(self, parts: Parts, home: Path, handle: RunHandle, observers: Sequence[Observer], log: Any) -> None:
        self._parts = parts
        self._home = home
        self._handle = handle
        self._log = log
        self._start = perf_counter()
        self._steps_taken = 0
        self._overhead = Stopwatch()
        watchers = make_watchers(parts, home, observers)
        self._observers = Observers(watchers, report=self._report, stopwatch=self._overhead)

    def go(self) -> Outcome:
        """Wire, train, evaluate, export; whatever happens, the observers are told how it ended."""
        parts = self._parts
        try:
            with (
                opened_device(parts) as (device, facts),
                determinism(is_deterministic(parts, device)),
                device_seeded(parts.core.seed, device),
            ):
                return self._train(wire(parts, device, self._home, self._warn), facts)
        except BaseException as error:
            self._tell_end("failed", {"error": f"{type(error).__name__}: {error}"})
            raise

    def _train(self, wired: Wired, facts: DeviceFacts) -> Outcome:
        steps, summary = wired.algorithm.steps, start_summary(self._parts, wired, facts)
        self._log.info("run started", steps=steps, **summary)
        self._observers.on_start(RunStart(folder=self._home, steps=steps, summary=summary))
        meter = Meter(config=self._parts.config("model"), engine=wired.engine, facts=facts, steps=steps)
        finished = self._steps(wired, meter)
        found = dict(wired.algorithm.finish()) if finished else {}
        counts = end_summary(
            meter=meter,
            seconds=perf_counter() - self._start,
            overhead=self._overhead.seconds,
            reason=None if finished else self._handle.reason,
            export=self._export(wired),
        )
        return self._end("finished" if finished else "stopped", {**found, **counts})

    def _steps(self, wired: Wired, meter: Meter) -> bool:
        """Take the steps; says whether all were taken."""
        batches = iter(wired.algorithm.batches())
        profiler = Profiler(self._parts.core.profile, wired.engine.device, self._home)
        profiler.check(wired.algorithm.steps)
        while self._handle.reason is None:
            asked = perf_counter()
            batch = next(batches, None)
            if batch is None:
                return True
            waited = perf_counter() - asked
            with profiler.watching(wired.engine.steps_taken + 1):
                result = wired.engine.step(batch, steps=wired.algorithm.steps)
            self._steps_taken = result.step
            more = wired.algorithm.after_step(result)
            with self._overhead:
                step = meter.step(result, batch, waited=waited, more=more)
                if result.skipped:
                    self._log.warning("step skipped", step=result.step, reason=result.reason)
            self._observers.on_step(step)
        return False

    def _export(self, wired: Wired) -> Path | None:
        settings = self._parts.core.export
        if not settings.enabled:
            return None
        target = self._home / "export"
        return export(wired.engine.model, target, tokenizer=wired.tokenizer, shard_bytes=settings.shard_bytes)

    def _end(self, status: str, summary: Mapping[str, Any]) -> Outcome:
        """Write `summary.json`, then tell the log and the observers, after whom nothing is left to fail."""
        failures = [asdict(failure) for failure in self._observers.failures]
        whole = {**summary, "status": status, "steps": self._steps_taken, "observer_failures": failures}
        write_json(self._home / "summary.json", whole)
        self._log.info("run ended", **whole)
        self._tell_end(status, summary)
        return Outcome(
            status=status,
            steps=self._steps_taken,
            folder=self._home,
            summary=whole,
            observer_failures=self._observers.failures,
        )

    def _tell_end(self, status: str, summary: Mapping[str, Any]) -> None:
        seconds = perf_counter() - self._start
        self._observers.on_end(RunEnd(status=status, steps=self._steps_taken, seconds=seconds, summary=summary))

    def _warn(self, event: str, values: Mapping[str, Any]) -> None:
        self._log.warning(event, **values)

    def _report(self, failure: ObserverFailure, error: Exception) -> None:
        log = self._log.bind(plugin=failure.plugin, slot="observer")
        log.warning(str(failure), exc_info=error)


def _label(plan: Plan) -> str:
    return "-".join(pick.name for key in ("algorithm", "model") if (pick := plan.pick(key)))
