"""An engine without a model, for the suite of the algorithms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import log

import torch

from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.loss import TokenScores
from xtuner_core.contracts.sampling import Sample, Sampling


class FakeEngine:
    """Implements `contracts.algorithm.Engine` without a model, and keeps what it was asked.

    Every token has the probability `1 / vocabulary`; a continuation repeats the last token of its prompt.
    """

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.scored: list[PackedBatch] = []
        self.prompts: list[list[int]] = []

    def score(self, batch: PackedBatch) -> TokenScores:
        """Log-probabilities and entropies of the uniform distribution."""
        self.scored.append(batch)
        labelled_T = (batch.labels >= 0).float()
        entropy_T = torch.full_like(labelled_T, log(self.vocabulary))
        return TokenScores(log_probs_T=-log(self.vocabulary) * labelled_T, entropy_T=entropy_T)

    def score_all(self, batches: Iterable[PackedBatch]) -> Iterator[TokenScores]:
        """As `score`, one after the other."""
        return map(self.score, batches)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Sample]:
        """Continue each prompt with `max_tokens` times its last token."""
        self.prompts += [list(prompt) for prompt in prompts]
        count = sampling.max_tokens
        zeros = (-log(self.vocabulary),) * count
        return [Sample(token_ids=(prompt[-1],) * count, log_probs=zeros, stop="length") for prompt in prompts]


def step_result(step: int, batches: Sequence[PackedBatch]) -> StepResult:
    """What the engine would report of a step over these micro-batches."""
    tokens = sum(batch.tokens for batch in batches)
    return StepResult(step=step, loss=1.0, grad_norm=1.0, learning_rate=1e-3, tokens=tokens, seconds=1.0)
