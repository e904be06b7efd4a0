"""Where a run lives, and where it begins: in a folder of its own, anew or from the newest good checkpoint there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xtuner_core.durable import sweep
from xtuner_core.engine.checkpoint.layout import FOLDER, checkpoints, step_of
from xtuner_core.engine.folder import make_folder, read_summary, use_folder, write_text
from xtuner_core.engine.lock import locked
from xtuner_core.engine.resume import Notice, newest_good, newest_run, refuse_changes
from xtuner_core.errors import UsageError
from xtuner_core.plan import Plan

PLAN = "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A run's folder, locked, and what a start found in it."""

    folder: Path
    plan: Plan
    """As it stands in the folder: with a note of every change that was accepted."""
    checkpoint: Path | None = None
    """Good, and gone on from; None where the run begins at its first step."""
    again: bool = False
    """Whether a run was here before."""
    resumed: str | None = None
    """What `--resume` came to, for a person; None where it was not asked for."""
    notices: tuple[Notice, ...] = ()
    done: Mapping[str, Any] | None = None
    """Summary of a run that finished here and has nothing left to do."""

    @property
    def steps_done(self) -> int:
        """Steps behind the run when it starts."""
        return 0 if self.checkpoint is None else step_of(self.checkpoint)


@contextmanager
def opened_home(plan: Plan, *, output: Path, folder: Path | None, resume: bool, accept_changes: bool) -> Iterator[Home]:
    """Choose, make and lock a run's folder, put it in order, and write its plan.

    :param folder: None makes one under `output`; with `resume`, goes on in the newest run there that was asked for
        the same and has not finished.
    :raises UsageError: it holds a run and `resume` is false; it is in use; it cannot be written.
    :raises PlanMismatch: the run there was asked for something else, and `accept_changes` is false.
    """
    chosen = newest_run(plan, output) if folder is None and resume else folder
    place = make_folder(output, label(plan)) if chosen is None else use_folder(chosen)
    with locked(place):
        yield _entered(plan, place, output, resume=resume, accept_changes=accept_changes)


def label(plan: Plan) -> str:
    """Names what a run does, for its folder: `pretrain-qwen3_moe`."""
    return "-".join(pick.name for key in ("algorithm", "model") if (pick := plan.pick(key)))


def _entered(plan: Plan, place: Path, output: Path, *, resume: bool, accept_changes: bool) -> Home:
    if not (place / PLAN).exists():
        write_text(place / PLAN, plan.to_json())
        resumed = f"nothing to go on from in {place.parent if place.parent == output.resolve() else place}: starts anew"
        return Home(folder=place, plan=plan, resumed=resumed if resume else None)
    if not resume:
        message = f"{place} already holds a run"
        raise UsageError(message, fix="choose another folder, or go on with it: --resume (resume=True)")
    return _resumed(plan, place, accept_changes=accept_changes)


def _resumed(plan: Plan, place: Path, *, accept_changes: bool) -> Home:
    stored, summary = Plan.load(place), read_summary(place)
    finished = summary.get("status") == "finished"
    changes = stored.changes(plan)
    if changes and not accept_changes:
        raise refuse_changes(place, changes)
    if finished and not changes:
        return Home(folder=place, plan=stored, done=summary)
    if finished and not checkpoints(place):
        message = f"the run in {place} finished and left no checkpoint to go on from"
        raise UsageError(message, fix=f"start a new run from its weights: init={place}")
    swept = [Notice.of("leftover of a dead save removed", name=n) for at in (place, place / FOLDER) for n in sweep(at)]
    checkpoint, skipped = newest_good(place)
    at = "starts anew" if checkpoint is None else f"goes on after step {step_of(checkpoint)}"
    notes = dict.fromkeys((*plan.notes, *stored.notes))
    notes |= dict.fromkeys([f"{at} with a change accepted: {change}" for change in changes])
    plan = replace(plan, notes=tuple(notes))
    (place / "summary.json").unlink(missing_ok=True)
    write_text(place / PLAN, plan.to_json())
    accepted = [Notice.of("change accepted", change=change) for change in changes]
    return Home(
        folder=place,
        plan=plan,
        checkpoint=checkpoint,
        again=True,
        resumed=f"{place} {at}",
        notices=(*swept, *skipped, *accepted),
    )
