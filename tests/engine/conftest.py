"""A toy model that the engine knows nothing of, and what builds an engine around it.

T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from xtuner_core_kernels.adamw.reference import IMPLEMENTATION as ADAMW
from xtuner_core_kernels.log_probs.reference import IMPLEMENTATION as LOG_PROBS

from xtuner_core.builtin.adamw.config import AdamWConfig
from xtuner_core.builtin.adamw.optimizer import AdamW
from xtuner_core.builtin.cpu.device import CpuDevice
from xtuner_core.builtin.cross_entropy.loss import TokenMean
from xtuner_core.config.root import EngineConfig
from xtuner_core.contracts.batch import Document, PackedBatch, pack
from xtuner_core.contracts.model import AuxiliaryLoss, ModelOutput, Prediction
from xtuner_core.contracts.precision import PrecisionPolicy
from xtuner_core.contracts.weights import Init, WeightEntry, WeightMap
from xtuner_core.engine.engine import Engine
from xtuner_core.engine.masters import lift, master_weights
from xtuner_core.engine.operators import OperatorBinder
from xtuner_core.nn.head import TokenHead
from xtuner_core.nn.roles import set_role

VOCAB, WIDTH = 11, 5
COEFFICIENT = 0.3


class Toy(nn.Module):
    """Embedding, one tanh layer, head; an auxiliary loss on the hidden states and a load of two `experts`."""

    def __init__(
        self,
        *,
        vocab: int = VOCAB,
        tied: bool = False,
        extra: float = 0.0,
        exact: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.extra = extra
        self.embed = set_role(nn.Embedding(vocab, WIDTH), "embed")
        self.inner = set_role(nn.Linear(WIDTH, WIDTH, dtype=exact), "mlp.up")
        self.head = TokenHead(vocab, WIDTH, tied=self.embed.weight if tied else None)
        self.followed: list[dict[str, Any]] = []

    def forward(self, batch: PackedBatch, cache: object = None) -> ModelOutput:
        x_TD = self.embed(batch.token_ids)
        hidden_TD = self.inner(x_TD.to(self.inner.weight.dtype)).tanh().to(x_TD.dtype)
        real_TD = hidden_TD[: batch.tokens]
        odd = (batch.token_ids[: batch.tokens] % 2).sum().float()
        more = [Prediction(name="mtp", hidden_TD=hidden_TD, labels="later", weight=self.extra)] if self.extra else []
        return ModelOutput(
            predictions=(Prediction(hidden_TD=hidden_TD), *more),
            auxiliary=(
                AuxiliaryLoss(name="size", total=real_TD.square().sum(), coefficient=COEFFICIENT, scope="document"),
            ),
            statistics={"expert_load": torch.stack([odd, batch.tokens - odd])[None]},
        )

    def weight_map(self) -> WeightMap:
        init = Init("normal", 0.5)
        names = [name for name, _ in self.named_parameters()]
        return WeightMap(tuple(WeightEntry(hf_name=name, parameter=name, init=init) for name in names))

    def after_step(self, statistics: dict[str, Tensor]) -> None:
        self.followed.append({name: value.tolist() for name, value in statistics.items()})


def filled(model: Toy, seed: int = 0) -> Toy:
    """Random weights, the same whatever the dtype."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64) / 2)
    return model


def documents(count: int = 12, seed: int = 1) -> list[Document]:
    """Documents of different lengths, some of whose tokens weigh nothing and some half."""
    random = torch.Generator().manual_seed(seed)
    made = []
    for index in range(count):
        plain = Document.of(torch.randint(VOCAB, (3 + index % 5,), generator=random))
        weights = plain.weights * torch.randint(3, plain.weights.shape, generator=random) / 2
        made.append(Document(token_ids=plain.token_ids, labels=plain.labels, weights=weights))
    return made


def split(docs: Sequence[Document], parts: int, capacity: int | None = None) -> list[PackedBatch]:
    """The documents in so many packs."""
    each = -(-len(docs) // parts)
    return [pack(docs[i : i + each], capacity=capacity) for i in range(0, len(docs), each)]


FP64 = PrecisionPolicy(parameter=torch.float64, compute=torch.float64, reduction=torch.float64, state=torch.float64)
BF16 = PrecisionPolicy(parameter=torch.float32, compute=torch.bfloat16, reduction=torch.float32, state=torch.float32)


def built(policy: PrecisionPolicy, fill: Callable[[Toy], Toy] = filled, **choices: Any) -> tuple[Toy, frozenset[str]]:
    """A toy as the engine builds it: made in the compute dtype, filled in the parameter dtype."""
    torch.set_default_dtype(policy.compute)
    try:
        model = Toy(**choices)
    finally:
        torch.set_default_dtype(torch.float32)
    followers = lift(model, policy)
    return fill(model), followers


@dataclass
class Rig:
    """An engine around a toy, and its parts."""

    engine: Engine
    model: Toy
    optimizer: AdamW


def rig(
    policy: PrecisionPolicy = FP64,
    *,
    loss: Any = None,
    clip_norm: float | None = None,
    learning_rate: float = 0.01,
    weight_decay: float = 0.1,
    **choices: Any,
) -> Rig:
    """An engine with a constant schedule, AdamW, and reference operators."""
    model, followers = built(policy, **choices)
    masters = master_weights(model, policy, followers)
    config = AdamWConfig(learning_rate=learning_rate, weight_decay=weight_decay)
    optimizer = AdamW(config, masters.optimized, state_dtype=policy.state)
    binder = OperatorBinder([("kernels", LOG_PROBS), ("kernels", ADAMW)], device="cpu")
    binder.bind(model.modules(), dtype=policy.compute)
    binder.bind([optimizer], dtype=policy.parameter)
    engine = Engine(
        model=model,
        device=CpuDevice(None),
        policy=policy,
        loss=TokenMean() if loss is None else loss,
        optimizer=optimizer,
        schedule=lambda step, steps: 1.0,
        masters=masters,
        settings=EngineConfig(clip_norm=clip_norm),
        operators=binder.rows,
    )
    return Rig(engine, model, optimizer)


def reference_loss(weights: dict[str, Tensor], docs: Sequence[Document]) -> Tensor:
    """The objective of a whole step in plain PyTorch, document by document."""
    nll = size = torch.zeros((), dtype=torch.float64)
    for doc in docs:
        hidden_TD = (weights["embed.weight"][doc.token_ids] @ weights["inner.weight"].T + weights["inner.bias"]).tanh()
        logits_TV = hidden_TD @ weights["head.weight"].T
        each_T = functional.cross_entropy(logits_TV, doc.labels, reduction="none", ignore_index=-100)
        nll = nll + (each_T * doc.weights).sum()
        size = size + hidden_TD.square().sum()
    return nll / sum(doc.weights.sum() for doc in docs) + COEFFICIENT * size / sum(len(doc) for doc in docs)


@pytest.fixture(scope="session")
def toy() -> SimpleNamespace:
    """Everything above, for tests to reach."""
    return SimpleNamespace(
        Toy=Toy,
        filled=filled,
        documents=documents,
        split=split,
        built=built,
        rig=rig,
        reference_loss=reference_loss,
        FP64=FP64,
        BF16=BF16,
        COEFFICIENT=COEFFICIENT,
        VOCAB=VOCAB,
    )
