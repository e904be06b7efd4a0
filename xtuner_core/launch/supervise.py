"""The process that starts the ranks of a run, and starts them again where they fail; it computes nothing itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from xtuner_core import errors
from xtuner_core.contracts.launcher import Job, Launcher, RankFailure
from xtuner_core.contracts.observer import Observer
from xtuner_core.engine.checkpoint.layout import checkpoints
from xtuner_core.engine.folder import read_summary
from xtuner_core.engine.handle import RunHandle
from xtuner_core.engine.home import Home
from xtuner_core.engine.observers import ObserverFailure
from xtuner_core.engine.outcome import Outcome
from xtuner_core.engine.resume import newest_good
from xtuner_core.errors import RunError, UsageError, XTunerCoreError
from xtuner_core.launch.files import FOLDER
from xtuner_core.launch.orders import start_of
from xtuner_core.logs import LogFormat, run_log
from xtuner_core.plan import Plan

COMMAND = (sys.executable, "-P", "-m", "xtuner_core.rank")
"""Starts one rank. Its working folder holds no modules of ours, so it is not searched for any (-P)."""


class RankError(Exception):
    """What a rank left: its traceback, or the stacks of all. Cause of the error by which the run ends."""


def supervise(
    plan: Plan,
    home: Home,
    launcher: Launcher,
    handle: RunHandle,
    *,
    timeout_seconds: float,
    observers: Sequence[Observer] = (),
    log_format: LogFormat = "console",
    command: Sequence[str] = COMMAND,
) -> Outcome:
    """Have a launcher start the ranks of a run, again after a failure while it may, and tell what came of the run.

    Each attempt but the first goes on from the newest good checkpoint.

    :param home: of the run, locked by this process for as long as this lasts.
    :param timeout_seconds: without progress of any rank after which they count as hung.
    :param observers: of the caller's own; there may be none, for they cannot be brought to another process.
    :param command: starts one rank; the file with its orders is added.
    :raises UsageError: something of the run exists in this process only.
    :raises XTunerCoreError: the ranks failed, and were started again as often as they may. Its cause is a `RankError`.
    """
    _refuse_what_stays_here(plan, observers)
    with run_log(home.folder / "log.jsonl", log_format=log_format) as log:
        for attempt in range(launcher.max_restarts + 1):
            job = Job(
                start=start_of(home, log_format),
                command=tuple(command),
                stop_reason=lambda: handle.reason,
                timeout_seconds=timeout_seconds,
            )
            failure = launcher.start(job, attempt)
            if failure is None:
                return outcome_of(home.folder)
            log.error(failure.message, rank=failure.rank, attempt=attempt, details=str(_kept(home, failure, attempt)))
            if attempt == launcher.max_restarts or handle.reason is not None or _is_final(failure):
                raise _error_of(failure, attempt)
            home = _again(home)
            log.warning("the ranks are started again", attempt=attempt + 1, steps_done=home.steps_done)
    raise AssertionError


def outcome_of(folder: Path) -> Outcome:
    """What came of a run, from the summary that its leading rank wrote.

    :raises RunError: it wrote none.
    """
    summary = read_summary(folder)
    if summary.get("status") not in ("finished", "stopped"):
        message = f"all ranks ended, and none wrote to {folder / 'summary.json'} what came of the run"
        raise RunError(message, fix=_go_on())
    return Outcome(
        status=summary["status"],
        steps=int(summary["steps"]),
        folder=folder,
        summary=summary,
        observer_failures=tuple(ObserverFailure(**each) for each in summary.get("observer_failures", ())),
        checkpoint=next(iter(checkpoints(folder)), None),
    )


def _refuse_what_stays_here(plan: Plan, observers: Sequence[Observer]) -> None:
    fix = "make a plugin of it and install it, or run without a launcher"
    if observers:
        raise UsageError("observers passed as objects cannot be brought to the ranks", fix=fix)
    for plugin in plan.plugins:
        if plugin.distribution == "object":
            message = f"plugin {plugin.name!r} was passed as an object, which cannot be brought to the ranks"
            raise UsageError(message, fix=fix)


def _kept(home: Home, failure: RankFailure, attempt: int) -> Path:
    """The file to which a failure is written whole."""
    file = home.folder / FOLDER / f"failure-{attempt}.txt"
    with suppress(OSError):  # a full disk must not hide why the ranks failed
        file.write_text(f"{failure.message}\n\n{failure.details}\n", encoding="utf-8")
    return file


def _again(home: Home) -> Home:
    (home.folder / "summary.json").unlink(missing_ok=True)
    checkpoint, skipped = newest_good(home.folder)
    return replace(home, checkpoint=checkpoint, again=True, notices=tuple(skipped))


def _is_final(failure: RankFailure) -> bool:
    """Whether the same would happen again: what was asked for cannot be had, whoever asks."""
    return failure.error is not None and not issubclass(_class_of(failure.error), RunError)


def _error_of(failure: RankFailure, restarts: int) -> XTunerCoreError:
    """The error by which the run ends here, as it would have ended in one process."""
    told = f"; it was the end of restart {restarts} of {restarts}" if restarts else ""
    if failure.error is None:
        error: XTunerCoreError = RunError(f"{failure.message}{told}", fix=_go_on())
    else:
        error = _class_of(failure.error)(f"{failure.message}{told}", fix=failure.fix)
    for note in failure.notes:
        error.add_note(note)
    error.__cause__ = RankError(failure.details)
    return error


def _class_of(name: str) -> type[XTunerCoreError]:
    """A class of ours by its name; one of a plugin's own, or one that takes other arguments, is told as its base."""
    found: Any = UsageError if name == "ComposeError" else getattr(errors, name, RunError)
    return found if isinstance(found, type) and issubclass(found, XTunerCoreError) else RunError


def _go_on() -> str:
    return "go on from its newest checkpoint: --folder and --resume; what each rank left is in `ranks` of that folder"
