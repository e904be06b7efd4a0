"""What a resume looks for: the run that was meant, its newest good checkpoint, and what has changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from xtuner_core.engine.checkpoint.layout import checkpoints, step_of
from xtuner_core.engine.folder import read_summary
from xtuner_core.errors import PlanMismatch, XTunerCoreError
from xtuner_core.plan import Plan


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell in the run's log, once there is one."""

    event: str
    values: Mapping[str, Any]

    @classmethod
    def of(cls, event: str, **values: Any) -> Notice:
        """With its values by name."""
        return cls(event, values)


def newest_run(plan: Plan, output: Path) -> Path | None:
    """The run below `output` that `--resume` means where no folder is named.

    Of the runs that were asked for the same (`Plan.asks_the_same`) it is the one whose plan was written last, by
    its start or by a resume, among those that have not finished; where all of them have, among these.
    """
    found: list[tuple[bool, float, Path]] = []
    for file in output.glob("*/plan.json") if output.is_dir() else ():
        try:
            if Plan.load(file).asks_the_same(plan):
                unfinished = read_summary(file.parent).get("status") != "finished"
                found.append((unfinished, file.stat().st_mtime, file.parent))
        except (XTunerCoreError, OSError):
            continue  # whatever lies there is not the run that was meant
    return max(found)[2] if found else None


def newest_good(run: Path) -> tuple[Path | None, list[Notice]]:
    """The newest checkpoint of a run without damage; those above it are set aside, each with the reason."""
    from xtuner_core.engine.checkpoint.saved import problems

    skipped: list[Notice] = []
    for checkpoint in checkpoints(run):
        reasons = problems(checkpoint)
        if not reasons:
            return checkpoint, skipped
        kept = _set_aside(checkpoint)
        skipped.append(
            Notice.of("checkpoint skipped", step=step_of(checkpoint), reason="; ".join(reasons), kept_as=kept.name)
        )
    return None, skipped


def refuse_changes(run: Path, changes: Sequence[str]) -> PlanMismatch:
    """The error of a run that was asked for something else."""
    lines = "\n".join(f"- {line}" for line in changes)
    fix = "run what the plan names, or accept the changes: --accept-changes (accept_changes=True)"
    return PlanMismatch(f"the run in {run} was another one:\n{lines}", fix=fix)


def _set_aside(checkpoint: Path) -> Path:
    """Give a damaged checkpoint a name that is none of a checkpoint, so that its step can be saved anew."""
    for number in count(1):
        kept = checkpoint.with_name(f"damaged-{checkpoint.name}" + ("" if number == 1 else f"-{number}"))
        if not kept.exists():
            return checkpoint.rename(kept)
    raise AssertionError
