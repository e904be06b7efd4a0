"""A checkpoint that lies on the disk: whether it is good, and what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from xtuner_core.engine.checkpoint.codec import decode
from xtuner_core.engine.checkpoint.layout import MODEL, OPTIMIZER, STATE, TENSORS
from xtuner_core.engine.checkpoint.manifest import damage
from xtuner_core.engine.checkpoint.tensors import first_unfit_of, read_tensors
from xtuner_core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The state of a run, read back; its weights lie in `model`."""

    step: int
    model: Path
    optimizer: Mapping[str, Any]
    algorithm: Mapping[str, Any]
    random: dict[str, Any]
    progress: Mapping[str, Any]


def problems(checkpoint: Path) -> list[str]:
    """Why a checkpoint cannot be gone on from, a sentence each: damage first, then numbers that are none."""
    found = damage(checkpoint)
    if found:
        return found
    files = [checkpoint / OPTIMIZER, *sorted((checkpoint / MODEL).glob("*.safetensors"))]
    unfit = [(file, first_unfit_of(file)) for file in files]
    return [
        f"{name} in {file.relative_to(checkpoint)} holds NaN or an infinity" for file, name in unfit if name is not None
    ]


def read_checkpoint(checkpoint: Path) -> Saved:
    """Read what `write_checkpoint` wrote, tensors on the CPU.

    :raises DataError: it cannot be read.
    """
    try:
        content = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        tensors = read_tensors(checkpoint / TENSORS)
        states = {name: decode(content[name], tensors) for name in ("algorithm", "random", "progress")}
        optimizer = decode(content["optimizer"], read_tensors(checkpoint / OPTIMIZER))
        return Saved(step=content["step"], model=checkpoint / MODEL, optimizer=optimizer, **states)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        message = f"the checkpoint {checkpoint} cannot be read: {error}"
        raise DataError(message, fix="go on from another one") from error
