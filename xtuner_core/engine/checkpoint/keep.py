"""Which checkpoints stay. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xtuner_core.durable import remove_folder
from xtuner_core.engine.checkpoint.layout import checkpoints, step_of
from xtuner_core.engine.checkpoint.manifest import read_score


def superfluous(found: Sequence[Path], *, last: int, best: int) -> list[Path]:
    """Choose those that are neither among the newest nor among the best.

    :param found: newest first.
    :param last: how many of the newest stay, at least 1.
    :param best: how many of the best stay beside them; those without a score are none.
    """
    kept = {*found[:last], *ranked(found)[:best]}
    return [checkpoint for checkpoint in found if checkpoint not in kept]


def ranked(found: Sequence[Path]) -> list[Path]:
    """Those that have a score, best first; of equals the earlier one."""
    scores = [(score.rank, step_of(each), each) for each in found if (score := read_score(each)) is not None]
    return [checkpoint for _, _, checkpoint in sorted(scores)]


def prune(run: Path, *, last: int, best: int) -> list[Path]:
    """Remove what is superfluous of a run's checkpoints; one is always whole or gone.

    :raises OSError: one cannot be removed.
    """
    removed = superfluous(checkpoints(run), last=last, best=best)
    for checkpoint in removed:
        remove_folder(checkpoint)
    return removed
