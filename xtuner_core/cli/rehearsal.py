"""Everything that can be checked of a run without training: device, texts, tokenizer, operators, checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from xtuner_core.contracts.model import Model
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.engine.build import draw, operator_rows
from xtuner_core.engine.inputs import check_vocabulary, choose_tokenizer, open_corpora, opened_device
from xtuner_core.engine.operators import OperatorRow
from xtuner_core.hf.checkpoint import Checkpoint, open_checkpoint, refusal
from xtuner_core.hf.targets import named_tensors, region
from xtuner_core.parts import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a run would find."""

    chip: str
    tokenizer: Tokenizer
    operators: tuple[OperatorRow, ...]
    weights: Checkpoint | None
    """None where the run starts from its seed."""


def rehearse(parts: Parts) -> Rehearsal:
    """Build the model on the meta device, bind its operators, account for its checkpoint; nothing is written.

    :raises XTunerCoreError: what the run would have raised before its first step.
    """
    with opened_device(parts) as (device, facts):
        tokenizer = choose_tokenizer(parts, open_corpora(parts))
        model = draw(parts, device).model
        check_vocabulary(model, tokenizer)
        pick = parts.plan.pick("model")
        source = pick.source if pick is not None else None
        return Rehearsal(
            chip=facts.chip,
            tokenizer=tokenizer,
            operators=operator_rows(parts, device),
            weights=_account(model, Path(source)) if source else None,
        )


def _account(model: nn.Module, folder: Path) -> Checkpoint:
    """Compare keys and shapes in the headers of a checkpoint with the model's weight map; no tensor is read."""
    checkpoint = open_checkpoint(folder)
    weight_map, tensors = cast("Model", model).weight_map(), named_tensors(model)
    expected = {entry.hf_name: list(region(entry, tensors).shape) for entry in weight_map.entries}
    found = {key: list(stored.shape) for key, stored in checkpoint.tensors.items()}
    # A key that is named but cannot be read, or that the map allows to be there, is no mismatch.
    settled = (checkpoint.named - found.keys()) | (weight_map.optional - expected.keys())
    problems = [
        f"{key}: expected {expected.get(key, 'no such key')}, found {found.get(key, 'none')}"
        for key in sorted(({*expected} | {*found}) - settled)
        if expected.get(key) != found.get(key)
    ]
    problems = [*checkpoint.problems, *(problems if checkpoint.complete else ())]
    if problems:
        raise refusal(folder, problems, fix="take config.json and weights, all of them, from one checkpoint")
    return checkpoint
