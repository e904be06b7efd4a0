"""The composition root: plan -> parts -> wired run -> outcome."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from xtuner_core.composition import Composition
from xtuner_core.contracts.observer import Observer, RunEnd, RunStart
from xtuner_core.engine.build import Wired, wire
from xtuner_core.engine.folder import make_folder, use_folder, write_json, write_text
from xtuner_core.engine.handle import RunHandle
from xtuner_core.engine.inputs import is_deterministic, opened_device
from xtuner_core.engine.metrics import Meter
from xtuner_core.engine.observers import ObserverFailure, Observers, Watcher
from xtuner_core.engine.process import default_dtype, determinism, seeded, sole_run, stopped_by_signals
from xtuner_core.engine.stopwatch import Stopwatch
from xtuner_core.engine.summary import end_summary, failures_as_data, start_summary
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
    :raises XTunerCoreError: it cannot be wired, or could not go on. Whatever is raised carries the plugins'
        hints as notes.
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
            run_log(home / "log.jsonl", log_format=log_format) as log,
        ):
            return _Run(parts, home, handle, observers, log.bind(rank=0)).go()
    except BaseException as error:
        for hint in host.explain(error, plan):
            error.add_note(hint.text)
        with suppress(UsageError):  # a full disk must not hide why the run failed
            write_json(home / "summary.json", _failure(error))
        raise


class _Run:
    """One run, from the open device to the outcome."""

    def __init__(self, parts: Parts, home: Path, handle: RunHandle, observers: Sequence[Observer], log: Any) -> None:
        self._parts = parts
        self._home = home
        self._handle = handle
        self._log = log
        self._start = perf_counter()
        self._overhead = Stopwatch()
        self._observers = Observers(_watchers(parts, home, observers), report=self._report, stopwatch=self._overhead)

    def go(self) -> Outcome:
        """Wire, train, evaluate, export."""
        parts = self._parts
        with (
            opened_device(parts) as (device, facts),
            determinism(is_deterministic(parts, device)),
            seeded(parts.core.seed, device),
        ):
            wired = wire(parts, device, self._home)
            summary = start_summary(parts, wired, facts)
            steps = wired.algorithm.steps
            self._log.info("run started", steps=steps, **summary)
            self._observers.on_start(RunStart(folder=self._home, steps=steps, summary=summary))
            meter = Meter(config=parts.config("model"), engine=wired.engine, facts=facts, steps=steps)
            try:
                return self._train(wired, meter)
            except BaseException as error:
                self._observers.on_end(self._ended("failed", wired, _failure(error)))
                raise

    def _train(self, wired: Wired, meter: Meter) -> Outcome:
        finished = self._steps(wired, meter)
        found = dict(wired.algorithm.finish()) if finished else {}
        exported = self._export(wired)
        counts = end_summary(
            meter=meter,
            seconds=perf_counter() - self._start,
            overhead=self._overhead.seconds,
            reason=None if finished else self._handle.reason,
            export=exported,
        )
        status = "finished" if finished else "stopped"
        return self._end(self._ended(status, wired, {**found, **counts}))

    def _steps(self, wired: Wired, meter: Meter) -> bool:
        """Take the steps; says whether all were taken."""
        batches = iter(wired.algorithm.batches())
        while self._handle.reason is None:
            asked = perf_counter()
            batch = next(batches, None)
            if batch is None:
                return True
            waited = perf_counter() - asked
            result = wired.engine.step(batch, steps=wired.algorithm.steps)
            more = wired.algorithm.after_step(result)
            with self._overhead:
                step = meter.step(result, batch, waited=waited, more=more)
                if result.skipped:
                    self._log.warning("step skipped: loss or gradient is not finite", step=result.step)
            self._observers.on_step(step)
        return False

    def _export(self, wired: Wired) -> Path | None:
        settings = self._parts.core.export
        if not settings.enabled:
            return None
        target = self._home / "export"
        return export(wired.engine.model, target, tokenizer=wired.tokenizer, shard_bytes=settings.shard_bytes)

    def _ended(self, status: str, wired: Wired, summary: Mapping[str, Any]) -> RunEnd:
        seconds = perf_counter() - self._start
        return RunEnd(status=status, steps=wired.engine.steps_taken, seconds=seconds, summary=summary)

    def _end(self, end: RunEnd) -> Outcome:
        """Tell the observers and the log, and write `summary.json`."""
        self._observers.on_end(end)
        failures = self._observers.failures
        summary = {
            **end.summary,
            "status": end.status,
            "steps": end.steps,
            "observer_failures": failures_as_data(failures),
        }
        self._log.info("run ended", **summary)
        write_json(self._home / "summary.json", summary)
        return Outcome(
            status=end.status,
            steps=end.steps,
            folder=self._home,
            summary=summary,
            observer_failures=failures,
        )

    def _report(self, failure: ObserverFailure, error: Exception) -> None:
        log = self._log.bind(plugin=failure.plugin, slot="observer")
        log.warning(str(failure), exc_info=error)


def _watchers(parts: Parts, home: Path, passed: Sequence[Observer]) -> list[Watcher]:
    picked = [
        Watcher(entry=pick.key, plugin=pick.plugin, observer=parts.make(pick.key, folder=home))
        for pick in parts.plan.picked("observer")
    ]
    return picked + [Watcher(entry=type(item).__qualname__, plugin=None, observer=item) for item in passed]


def _label(plan: Plan) -> str:
    return "-".join(pick.name for key in ("algorithm", "model") if (pick := plan.pick(key)))


def _failure(error: BaseException) -> dict[str, Any]:
    return {
        "status": "failed",
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
