"""What a checkpoint holds, and the one function that writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.durable import whole_folder, write_synced
from xtuner_core.engine.checkpoint.codec import encode
from xtuner_core.engine.checkpoint.layout import MODEL, OPTIMIZER, PLAN, STATE, TENSORS
from xtuner_core.engine.checkpoint.manifest import Score, write_manifest
from xtuner_core.engine.checkpoint.tensors import first_unfit, write_tensors
from xtuner_core.errors import RunError
from xtuner_core.hf.shards import SHARD_BYTES
from xtuner_core.hf.write import write_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model's weights as the optimizer has them."""

    model: nn.Module
    tensors: Mapping[str, Tensor]
    """Every parameter and persistent buffer by name; master copies where there are any."""
    tokenizer: Tokenizer | None = None
    shard_bytes: int = SHARD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run right after a step, beside its weights. Nested plain data and tensors, not copied."""

    step: int
    optimizer: Mapping[str, Any]
    algorithm: Mapping[str, Any]
    random: Mapping[str, Any]
    progress: Mapping[str, Any] = field(default_factory=dict)
    """Totals of the run so far, by the part that counts them."""
    plan: str
    """The run's `plan.json`."""
    plan_digest: str
    score: Score | None = None
    """None where the step was not evaluated."""


def write_checkpoint(target: Path, weights: Weights, snapshot: Snapshot) -> None:
    """Write a checkpoint to `target`, in one piece.

    :raises RunError: a weight or a state of the optimizer is not finite; names it.
    :raises ContractError: a state holds something that cannot be saved; names where.
    :raises OSError: something cannot be written; then `target` is not there.
    """
    optimizer, moments = encode(snapshot.optimizer, "optimizer")
    states = {name: encode(getattr(snapshot, name), name) for name in ("algorithm", "random", "progress")}
    _refuse_unfit(snapshot.step, {**weights.tensors, **moments})
    with whole_folder(target) as folder:
        (folder / MODEL).mkdir()
        write_model(
            weights.model,
            folder / MODEL,
            weights.tensors,
            tokenizer=weights.tokenizer,
            shard_bytes=weights.shard_bytes,
        )
        write_tensors(folder / OPTIMIZER, moments)
        write_tensors(folder / TENSORS, {n: t for _, tensors in states.values() for n, t in tensors.items()})
        plain = {name: state for name, (state, _) in states.items()}
        content = {"step": snapshot.step, "plan": snapshot.plan_digest, "optimizer": optimizer, **plain}
        write_synced(folder / STATE, [(json.dumps(content, indent=1, allow_nan=False) + "\n").encode()])
        write_synced(folder / PLAN, [snapshot.plan.encode()])
        write_manifest(folder, step=snapshot.step, score=snapshot.score)


def _refuse_unfit(step: int, tensors: Mapping[str, Tensor]) -> None:
    name = first_unfit(tensors.items())
    if name is not None:
        raise RunError(
            f"step {step}: {name} holds NaN or an infinity, and is not saved",
            fix="go on from the last good checkpoint with --resume, with a lower learning rate or more precision",
        )
