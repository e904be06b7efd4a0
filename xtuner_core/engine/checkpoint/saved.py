"""A checkpoint that lies on the disk: whether it is good, and what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from xtuner_core.contracts.weights import Part
from xtuner_core.engine.checkpoint.codec import decode
from xtuner_core.engine.checkpoint.layout import MODEL, OPTIMIZER, RANKS, STATE, TENSORS
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
    random: Sequence[dict[str, Any]]
    """By rank; those of a run of another number of ranks may be more or fewer."""
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


def read_checkpoint(checkpoint: Path, moments: Mapping[str, Part] | None = None) -> Saved:
    """Read what `write_checkpoint` wrote, tensors on the CPU.

    :param moments: boxes of the optimizer's tensors that this rank wants; None reads every one, whole.
    :raises DataError: it cannot be read.
    """
    try:
        content = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        tensors = read_tensors(checkpoint / TENSORS)
        states = {name: decode(content[name], tensors) for name in ("algorithm", "random", "progress")}
        optimizer = _optimizer(content["optimizer"], checkpoint / OPTIMIZER, moments)
        random = states.pop("random")
        random = random.get(RANKS, [random])
        return Saved(step=content["step"], model=checkpoint / MODEL, optimizer=optimizer, random=random, **states)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        message = f"the checkpoint {checkpoint} cannot be read: {error}"
        raise DataError(message, fix="go on from another one") from error


def _optimizer(plain: Any, file: Path, moments: Mapping[str, Part] | None) -> Any:
    if moments is None:
        return decode(plain, read_tensors(file))
    every, mine = set(plain.get("parameters", {})), {name.rpartition(".")[0] for name in moments}
    away = {name for name in every if f"optimizer.parameters.{name}" not in mine}
    kept = {name: value for name, value in plain.get("parameters", {}).items() if name not in away}
    others = {**plain, "parameters": kept} if "parameters" in plain else plain
    return decode(others, read_tensors(file, moments))
