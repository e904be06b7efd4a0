"""Everything that can be checked of a run without training: device, texts, tokenizer, operators, checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from xtuner_core.contracts.model import Model
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.engine.build import draw, operator_rows
from xtuner_core.engine.inputs import check_vocabulary, choose_tokenizer, open_corpora, opened_device
from xtuner_core.engine.operators import OperatorRow
from xtuner_core.engine.ranks.groups import alone
from xtuner_core.hf.checkpoint import Checkpoint
from xtuner_core.hf.read import account
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
        drawn = draw(parts, device, alone(device.torch_device.type))
        model = drawn.model
        check_vocabulary(drawn.layout.whole, model, tokenizer)
        pick = parts.plan.pick("model")
        source = parts.core.init or (pick.source if pick is not None else None)
        return Rehearsal(
            chip=facts.chip,
            tokenizer=tokenizer,
            operators=operator_rows(parts, device),
            weights=account(model, cast("Model", model).weight_map(), source) if source else None,
        )
