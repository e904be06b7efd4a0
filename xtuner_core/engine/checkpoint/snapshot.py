"""What a checkpoint holds, and the one function that writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.contracts.weights import Part
from xtuner_core.durable import whole_folder, write_synced
from xtuner_core.engine.checkpoint.codec import encode
from xtuner_core.engine.checkpoint.layout import MODEL, OPTIMIZER, PLAN, STATE, TENSORS
from xtuner_core.engine.checkpoint.manifest import Score, write_manifest
from xtuner_core.engine.checkpoint.tensors import first_unfit, write_parts, write_tensors
from xtuner_core.errors import RunError
from xtuner_core.hf.agreement import Agreement, shared_folder
from xtuner_core.hf.shards import SHARD_BYTES
from xtuner_core.hf.together import ALONE, Together
from xtuner_core.hf.write import plan_model, write_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model's weights as the optimizer has them."""

    model: nn.Module
    parts: Mapping[str, Part]
    """What this rank holds of every parameter and persistent buffer, by name; master copies where there are any."""
    tokenizer: Tokenizer | None = None
    shard_bytes: int = SHARD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run right after a step, beside its weights. Nested plain data and tensors, not copied."""

    step: int
    optimizer: Mapping[str, Any]
    """This rank's; of its tensors, those that follow a parameter are the same part of the whole as that."""
    moments: Mapping[str, Part]
    """The optimizer's tensors by the names that `codec.encode` gives them, below `optimizer`."""
    algorithm: Mapping[str, Any]
    random: Mapping[str, Any]
    progress: Mapping[str, Any] = field(default_factory=dict)
    """Totals of the run so far, by the part that counts them."""
    plan: str
    """The run's `plan.json`."""
    plan_digest: str
    score: Score | None = None
    """None where the step was not evaluated."""


def write_checkpoint(target: Path, weights: Weights, snapshot: Snapshot, together: Together = ALONE) -> None:
    """Write a checkpoint to `target`, in one piece; all ranks together.

    The files are those of one process, whatever the number of ranks: whole tensors, of which each rank writes what it
    holds. `torch.distributed.checkpoint` is not used, because its metadata is a pickle and nothing is unpickled here.

    :raises RunError: a weight or a state of the optimizer is not finite, on any rank; names it.
    :raises ContractError: a state holds something that cannot be saved; names where.
    :raises OSError: something cannot be written, on any rank; then `target` is not there.
    """
    optimizer, moments = encode(snapshot.optimizer, "optimizer")
    states = {name: encode(getattr(snapshot, name), name) for name in ("algorithm", "random", "progress")}
    with shared_folder(whole_folder(target), together) as (folder, agreement):
        held = {name: part.tensor for name, part in weights.parts.items()}
        _refuse_unfit(snapshot.step, {**held, **moments})
        agreement.lead(lambda: (folder / MODEL).mkdir())
        files = plan_model(
            weights.model, weights.parts, agreement, tokenizer=weights.tokenizer, shard_bytes=weights.shard_bytes
        )
        write_model(files, folder / MODEL, weights.parts, agreement)
        parts = {name: snapshot.moments.get(name, _whole(tensor, agreement)) for name, tensor in moments.items()}
        write_parts(folder / OPTIMIZER, parts, agreement)
        merged = _merged(agreement.meet(optimizer))
        if agreement.leads:
            write_tensors(folder / TENSORS, {n: t for _, tensors in states.values() for n, t in tensors.items()})
            plain = {name: state for name, (state, _) in states.items()}
            content = {"step": snapshot.step, "plan": snapshot.plan_digest, "optimizer": merged, **plain}
            write_synced(folder / STATE, [(json.dumps(content, indent=1, allow_nan=False) + "\n").encode()])
            write_synced(folder / PLAN, [snapshot.plan.encode()])
        agreement.meet()
        if agreement.leads:
            write_manifest(folder, step=snapshot.step, score=snapshot.score)


def _whole(tensor: Tensor, agreement: Agreement) -> Part:
    """A tensor that is the same on every rank."""
    return replace(Part.whole(tensor), writes=agreement.leads)


def _merged(ranks: Sequence[Any]) -> Any:
    """The optimizer's plain state, with the parameters that only some ranks have."""
    if not ranks or not isinstance(ranks[0], dict) or "parameters" not in ranks[0]:
        return ranks[0] if ranks else None
    parameters: dict[str, Any] = {}
    for state in ranks:
        for name, value in state["parameters"].items():
            parameters.setdefault(name, value)
    return {**ranks[0], "parameters": parameters}


def _refuse_unfit(step: int, tensors: Mapping[str, Tensor]) -> None:
    name = first_unfit(tensors.items())
    if name is not None:
        raise RunError(
            f"step {step}: {name} holds NaN or an infinity, and is not saved",
            fix="go on from the last good checkpoint with --resume, with a lower learning rate or more precision",
        )
