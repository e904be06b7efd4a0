"""Stand-ins for the core's services, small enough to read in a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch

from xtuner_core.config.root import DataConfig
from xtuner_core.contracts.algorithm import Services, StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.dataset import Corpus
from xtuner_core.contracts.loss import TokenScores
from xtuner_core.contracts.observer import RunStep
from xtuner_core.contracts.sampling import Sample, Sampling
from xtuner_core.data.memory import TextCorpus
from xtuner_core.hf.tokenizer import load_tokenizer
from xtuner_core.testing.tiny_texts import TOKENIZER


@dataclass
class UniformEngine:
    """Finds every token equally probable, and keeps what it was asked."""

    size: int = 257
    scored: list[PackedBatch] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)

    def score(self, batch: PackedBatch) -> TokenScores:
        self.scored.append(batch)
        return TokenScores(log_probs_T=torch.full(batch.labels.shape, -log(self.size)) * (batch.labels >= 0))

    def score_all(self, batches):
        return map(self.score, batches)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Sample]:
        self.prompts += [list(prompt) for prompt in prompts]
        ids = tuple(load_tokenizer(TOKENIZER).encode("and so on"))
        return [Sample(token_ids=ids, log_probs=(0.0,) * len(ids), stop="length") for _ in prompts]


@pytest.fixture
def reported() -> list[tuple[str, dict[str, Any]]]:
    """What the algorithm warned of."""
    return []


@pytest.fixture
def services(tmp_path: Path, reported: list[tuple[str, dict[str, Any]]]) -> Callable[..., Services]:
    def make(
        train: list[str], held_out: list[str], *, corpora: Mapping[str, Corpus] | None = None, seed: int = 0
    ) -> Services:
        return Services(
            engine=UniformEngine(),
            tokenizer=load_tokenizer(TOKENIZER),
            corpora=corpora or {"texts": TextCorpus("texts", train, held_out)},
            seed=seed,
            folder=tmp_path,
            data=DataConfig(workers=0),
            cache=tmp_path / "cache",
            report=lambda event, values: reported.append((event, dict(values))),
            stopping=lambda: None,
        )

    return make


@pytest.fixture
def result() -> Callable[..., StepResult]:
    def make(step: int = 1, **values: Any) -> StepResult:
        given = {"loss": 2.5, "grad_norm": 0.5, "learning_rate": 1e-3, "tokens": 100, "seconds": 0.25, **values}
        return StepResult(step=step, **given)

    return make


@pytest.fixture
def run_step(result: Callable[..., StepResult]) -> Callable[..., RunStep]:
    def make(step: int = 1, steps: int = 10, metrics: Mapping[str, float] | None = None, **values: Any) -> RunStep:
        return RunStep(
            result=result(step, **values),
            steps=steps,
            tokens_per_second=400.0,
            model_flops_per_second=1e9,
            mfu=None,
            memory_peak_bytes=1 << 20,
            metrics=metrics or {},
        )

    return make
