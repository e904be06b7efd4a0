"""Names in a run's folder of checkpoints, and in one of them. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = "checkpoints"
"""In the run's folder."""
MODEL = "model"
"""The weights as a Hugging Face folder, in the dtype of what is optimized."""
OPTIMIZER = "optimizer.safetensors"
TENSORS = "state.safetensors"
"""Tensors of the algorithm's state and of the random generators."""
STATE = "state.json"
PLAN = "plan.json"
RANKS = "ranks"
"""In the state, of the random generators where there were several ranks: a list, by rank."""
MANIFEST = "manifest.json"
"""Size and SHA-256 of every other file; written last."""

_STEP = re.compile(r"step-(\d{8,})")


def checkpoint_name(step: int) -> str:
    """Name of the checkpoint after `step` steps; names sort as steps do."""
    return f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    """The steps that a checkpoint's name tells."""
    found = _STEP.fullmatch(checkpoint.name)
    assert found is not None, checkpoint
    return int(found[1])


def checkpoints(run: Path) -> list[Path]:
    """Every checkpoint of a run, good or not, newest first."""
    home = run / FOLDER
    found = [item for item in home.iterdir() if _STEP.fullmatch(item.name)] if home.is_dir() else []
    return sorted(found, key=step_of, reverse=True)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint by itself, wherever it lies."""
    return (folder / STATE).is_file() and (folder / MODEL).is_dir()
