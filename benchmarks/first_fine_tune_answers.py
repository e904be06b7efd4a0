"""What a folder's model answers, for `first_fine_tune.py`. T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from first_fine_tune_tasks import Task
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from xtuner_core.contracts.batch import Document, pack
from xtuner_core.contracts.sampling import Sampling
from xtuner_core.engine.generate import generate
from xtuner_core.engine.loading import load_model

EXACT = ("device=cpu", "precision=fp32")
LONGEST = 24
"""Tokens of a reply; the longest right one has about half of them."""
TOGETHER = 16


def answers(folder: Path, tasks: Sequence[Task]) -> list[str]:
    """The most probable reply to each question, by the folder's own chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [_prompt(tokenizer, task) for task in tasks]
    sampling = Sampling(max_tokens=LONGEST, temperature=0.0, stop_token_ids=(tokenizer.eos_token_id,))
    with load_model(folder, overrides=EXACT) as loaded:
        samples = [
            sample
            for start in range(0, len(prompts), TOGETHER)
            for sample in generate(loaded.model, prompts[start : start + TOGETHER], sampling, device="cpu")
        ]
    return [tokenizer.decode(sample.token_ids, skip_special_tokens=True).strip() for sample in samples]


@torch.no_grad()
def logits_apart(folder: Path, tasks: Sequence[Task]) -> float:
    """Largest difference between our logits of some prompts and those of `transformers`, over the largest logit."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with load_model(folder, overrides=EXACT) as loaded:
        return max(_apart(loaded.model, theirs, _prompt(tokenizer, task)) for task in tasks)


def _apart(ours: Any, theirs: Any, token_ids: list[int]) -> float:
    mine_TV: Tensor = ours.head(ours(pack([Document.of(token_ids)])).predictions[0].hidden_TD)
    expected_TV: Tensor = theirs(torch.tensor([token_ids])).logits[0]
    return float((mine_TV - expected_TV).abs().max() / expected_TV.abs().max())


def _prompt(tokenizer: Any, task: Task) -> list[int]:
    turns = task.conversation()["messages"][:-1]
    token_ids: list[int] = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    return token_ids
