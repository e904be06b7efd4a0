"""The composition root: plan -> parts -> wired run -> outcome."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import cast

import torch

from xtuner_core.composition import Composition
from xtuner_core.contracts.launcher import Launcher, Membership, Start
from xtuner_core.contracts.observer import Observer
from xtuner_core.engine.blame import blame
from xtuner_core.engine.checkpoint.layout import checkpoints
from xtuner_core.engine.folder import write_json
from xtuner_core.engine.follower import Follower
from xtuner_core.engine.handle import RunHandle
from xtuner_core.engine.home import Home, opened_home
from xtuner_core.engine.outcome import Outcome
from xtuner_core.engine.process import default_dtype, seeded, sole_run, stopped_by_signals
from xtuner_core.engine.ranks.heartbeat import Pulse
from xtuner_core.engine.ranks.place import Place
from xtuner_core.engine.session import Session
from xtuner_core.engine.summary import failure_summary
from xtuner_core.errors import UsageError
from xtuner_core.host import Host
from xtuner_core.launch.orders import home_of
from xtuner_core.launch.supervise import supervise
from xtuner_core.launch.vitals import vitals
from xtuner_core.logs import LogFormat, run_log
from xtuner_core.parts import Parts
from xtuner_core.plan import Plan

__all__ = ["Outcome", "RunHandle", "run"]


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
    launcher: Launcher | None = parts.make("launcher") if plan.pick("launcher") else None
    membership = Membership() if launcher is None else launcher.membership()
    with sole_run(handle), stopped_by_signals(handle):
        if membership is not None and membership.rank:
            return _followed(parts, Place(membership=membership, watched=False), handle)
        place = opened_home(
            plan,
            output=Path(parts.core.output),
            folder=None if folder is None else Path(folder),
            resume=resume,
            accept_changes=accept_changes,
        )
        with place as home:
            if home.done is not None:
                return _nothing_to_do(home)
            if launcher is None or membership is None:
                if launcher is not None:
                    limit = parts.core.ranks.timeout_seconds
                    return supervise(
                        plan, home, launcher, handle, timeout_seconds=limit, observers=observers, log_format=log_format
                    )
                return _led(parts, home, handle, Place(), observers, log_format, start)
            with vitals(home.folder, 0, limit_seconds=parts.core.ranks.timeout_seconds) as pulse:
                here = Place(membership=membership, pulse=pulse)
                return _led(parts, home, handle, here, observers, log_format, start)


def run_rank(
    plan: Plan, *, host: Host, membership: Membership, start: Start, handle: RunHandle, heartbeat: Pulse
) -> None:
    """Be one rank of a run that another process started, opened the home of, and watches (`xtuner_core.rank`)."""
    begun, parts = perf_counter(), Parts(plan, host)
    place = Place(membership=membership, pulse=heartbeat)
    with sole_run(handle):
        if membership.rank:
            _followed(parts, place, handle)
        else:
            _led(parts, home_of(start, plan), handle, place, (), cast("LogFormat", start.log_format), begun)


def _led(
    parts: Parts,
    home: Home,
    handle: RunHandle,
    place: Place,
    observers: Sequence[Observer],
    log_format: LogFormat,
    start: float,
) -> Outcome:
    """The run, or what the rank that leads has to do with it."""
    try:
        with (
            default_dtype(torch.float32),
            seeded(parts.core.seed),
            run_log(home.folder / "log.jsonl", log_format=log_format) as log,
        ):
            return Session(parts, home, handle, place, observers, log.bind(rank=0), start).go()
    except BaseException as error:
        _annotate(error, parts)
        with suppress(UsageError):  # a full disk must not hide why the run failed
            write_json(home.folder / "summary.json", failure_summary(error))
        raise


def _followed(parts: Parts, place: Place, handle: RunHandle) -> Outcome:
    """What any rank but the leading one has to do with the run."""
    try:
        with default_dtype(torch.float32), seeded(parts.core.seed):
            return Follower(parts, place, handle).go()
    except BaseException as error:
        _annotate(error, parts)
        raise


def _annotate(error: BaseException, parts: Parts) -> None:
    for note in (blame(error, parts.host), *(hint.text for hint in parts.host.explain(error, parts.plan))):
        if note is not None:
            error.add_note(note)


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
