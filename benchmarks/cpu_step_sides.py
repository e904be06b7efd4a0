"""The two sides of `cpu_step.py`: one optimizer step of ours, and one of `transformers`, from one checkpoint.

B documents, L tokens of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.utils import logging

from xtuner_core import Host, compose
from xtuner_core.contracts.batch import Document, pack
from xtuner_core.engine.build import Watch, wire
from xtuner_core.engine.engine import Engine
from xtuner_core.engine.inputs import is_deterministic, opened_device
from xtuner_core.engine.process import determinism
from xtuner_core.parts import Parts
from xtuner_core.testing import tiny

LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY, CLIP = 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0
EXPERTS = ("eager", "grouped_mm")
"""Implementations of the experts in `transformers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model's sizes; the head is the embedding, and the weights of a token's experts are divided by their sum."""

    hidden: int
    layers: int
    experts: int
    top_k: int
    expert_width: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int


class Side(Protocol):
    """Takes training steps on one batch, again and again."""

    def step(self) -> tuple[float, float]:
        """Forward, backward, clipped update; gives the loss and the norm of the gradient before clipping."""


def make_checkpoint(size: Size, folder: Path, *, length: int) -> int:
    """Write random weights as `transformers` saves them; gives the number of parameters."""
    settings: dict[str, Any] = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_experts": size.experts,
        "num_experts_per_tok": size.top_k,
        "moe_intermediate_size": size.expert_width,
        "intermediate_size": size.expert_width,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head_dim,
        "tie_word_embeddings": True,
        "norm_topk_prob": True,
        "max_position_embeddings": length,
        "router_aux_loss_coef": 0.0,
        "output_router_logits": False,
        "use_cache": False,
    }
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    model: Any = Qwen3MoeForCausalLM(Qwen3MoeConfig(**settings))
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def draw_tokens(size: Size, *, documents: int, length: int) -> Tensor:
    """Random ids, int64 [B, L]."""
    return torch.randint(size.vocabulary, (documents, length), generator=torch.Generator().manual_seed(1))


class Ours:
    """The engine as a run wires it: loss `cross_entropy`, optimizer `adamw`, precision `fp32`, deterministic."""

    def __init__(self, engine: Engine, ids_BL: Tensor, *, deterministic: bool) -> None:
        self._engine = engine
        self._batch = pack([Document.of(ids_L) for ids_L in ids_BL])
        self._deterministic = deterministic

    @property
    def operators(self) -> dict[str, str]:
        """The implementation that serves each operator."""
        return {row.operator: row.implementation for row in self._engine.operators}

    def step(self) -> tuple[float, float]:
        """One step of the engine over one micro-batch."""
        with determinism(self._deterministic):
            result = self._engine.step([self._batch], steps=1_000_000)
        return result.loss, result.grad_norm


@contextmanager
def ours(checkpoint: Path, ids_BL: Tensor, folder: Path) -> Iterator[Ours]:
    """Compose and wire a run on the checkpoint, and lend its engine."""
    length = ids_BL.shape[1]
    recipe = {
        "model": str(checkpoint),
        "dataset": "tiny_texts",
        "device": "cpu",
        "precision": "fp32",
        "loss": "cross_entropy",
        "schedule": "constant",
        "engine": {"clip_norm": CLIP},
        "optimizer": {
            "name": "adamw",
            "learning_rate": LEARNING_RATE,
            "beta1": BETAS[0],
            "beta2": BETAS[1],
            "eps": EPS,
            "weight_decay": WEIGHT_DECAY,
        },
        "algorithm": {
            "name": "pretrain",
            "tokens_per_step": ids_BL.numel(),
            "micro_batch_tokens": ids_BL.numel(),
            "document_tokens": length,
        },
    }
    composition = compose(recipe, host=Host(objects={"tiny": tiny}))
    parts = Parts(composition.require(), composition.host)
    with opened_device(parts) as (device, _):
        engine = wire(parts, device, folder, lambda event, values: None, Watch(stopping=lambda: None)).engine
        yield Ours(engine, ids_BL, deterministic=is_deterministic(parts, device))


class Theirs:
    """`Qwen3MoeForCausalLM` with SDPA attention and fused `torch.optim.AdamW`; norms have no weight decay."""

    def __init__(self, checkpoint: Path, ids_BL: Tensor, *, experts: str) -> None:
        self._model: Any = Qwen3MoeForCausalLM.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            attn_implementation="sdpa",
            experts_implementation=experts,
            local_files_only=True,
        ).train()
        self._parameters = list(self._model.parameters())
        groups = [
            {"params": [p for p in self._parameters if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in self._parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPS, fused=True)
        self._ids_BL = ids_BL

    def step(self) -> tuple[float, float]:
        """One step as its users write it."""
        loss = self._model(input_ids=self._ids_BL, labels=self._ids_BL).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.item(), norm.item()
