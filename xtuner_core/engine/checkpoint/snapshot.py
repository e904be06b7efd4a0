"""What a checkpoint holds, taken down and written."""

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
from xtuner_core.engine.checkpoint.layout import MODEL, OPTIMIZER, PLAN, RANKS, STATE, TENSORS
from xtuner_core.engine.checkpoint.manifest import Score, write_manifest
from xtuner_core.engine.checkpoint.tensors import first_unfit, write_parts, write_tensors
from xtuner_core.errors import RunError
from xtuner_core.hf.agreement import Agreement, shared_folder
from xtuner_core.hf.shards import SHARD_BYTES
from xtuner_core.hf.together import ALONE, Together
from xtuner_core.hf.write import ModelFiles, plan_model, write_model


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What this rank puts into a checkpoint, taken down: model, optimizer and algorithm are asked nothing any more."""

    step: int
    score: Score | None
    files: ModelFiles
    weights: Mapping[str, Part]
    moments: Mapping[str, Part]
    tensors: Mapping[str, Tensor]
    """Of the algorithm's state and the random generators; empty on a rank that does not lead, as is what follows."""
    state: str
    plan: str


def content_of(weights: Weights, snapshot: Snapshot, agreement: Agreement) -> Content:
    """Take down what a checkpoint is to hold; all ranks together. Tensors are not copied.

    :raises RunError: a weight or a state of the optimizer is not finite, on any rank; names it.
    :raises ContractError: a state holds something that cannot be saved; names where.
    """
    optimizer, moments = encode(snapshot.optimizer, "optimizer")
    held = {name: part.tensor for name, part in weights.parts.items()}
    _refuse_unfit(snapshot.step, {**held, **moments})
    files = plan_model(
        weights.model, weights.parts, agreement, tokenizer=weights.tokenizer, shard_bytes=weights.shard_bytes
    )
    plain, tensors = _leading(snapshot, _merged(optimizer, agreement), agreement.meet(snapshot.random))
    return Content(
        step=snapshot.step,
        score=snapshot.score,
        files=files,
        weights=weights.parts,
        moments={name: snapshot.moments.get(name, _whole(tensor, agreement)) for name, tensor in moments.items()},
        tensors=tensors,
        state=plain,
        plan=snapshot.plan,
    )


def write_checkpoint(target: Path, content: Content, together: Together = ALONE) -> None:
    """Write a checkpoint to `target`, in one piece; all ranks together.

    The files are those of one process, whatever the number of ranks: whole tensors, of which each rank writes what it
    holds. `torch.distributed.checkpoint` is not used, because its metadata is a pickle and nothing is unpickled here.

    :raises OSError: something cannot be written, on any rank; then `target` is not there.
    """
    with shared_folder(whole_folder(target), together) as (folder, agreement):
        agreement.lead(lambda: (folder / MODEL).mkdir())
        write_model(content.files, folder / MODEL, content.weights, agreement)
        write_parts(folder / OPTIMIZER, content.moments, agreement)
        if agreement.leads:
            write_tensors(folder / TENSORS, content.tensors)
            write_synced(folder / STATE, [content.state.encode()])
            write_synced(folder / PLAN, [content.plan.encode()])
        write_manifest(folder, step=content.step, score=content.score, agreement=agreement)


def _leading(snapshot: Snapshot, optimizer: Any, random: Sequence[Any]) -> tuple[str, dict[str, Tensor]]:
    """The JSON and the tensors beside the optimizer's, on the leading rank; nothing on the others.

    :param random: of all ranks.
    """
    if not random:
        return "", {}
    given = {
        "algorithm": snapshot.algorithm,
        "random": random[0] if len(random) == 1 else {RANKS: list(random)},
        "progress": snapshot.progress,
    }
    states = {name: encode(state, name) for name, state in given.items()}
    plain = {name: state for name, (state, _) in states.items()}
    content = {"step": snapshot.step, "plan": snapshot.plan_digest, "optimizer": optimizer, **plain}
    tensors = {name: tensor for _, held in states.values() for name, tensor in held.items()}
    return json.dumps(content, indent=1, allow_nan=False) + "\n", tensors


def _whole(tensor: Tensor, agreement: Agreement) -> Part:
    """A tensor that is the same on every rank."""
    return replace(Part.whole(tensor), writes=agreement.leads)


def _merged(optimizer: Any, agreement: Agreement) -> Any:
    """The optimizer's plain state, on the leading rank with the parameters that only others have."""
    if agreement.alike(optimizer):
        return optimizer
    merged: dict[str, Any] = {}
    for state in agreement.meet(optimizer):
        merged = {**state, **merged, "parameters": {**state.get("parameters", {}), **merged.get("parameters", {})}}
    return merged


def _refuse_unfit(step: int, tensors: Mapping[str, Tensor]) -> None:
    name = first_unfit(tensors.items())
    if name is not None:
        raise RunError(
            f"step {step}: {name} holds NaN or an infinity, and is not saved",
            fix="go on from the last good checkpoint with --resume, with a lower learning rate or more precision",
        )
