"""What is differentiated: the loss of every prediction and the model's auxiliary losses, for one micro-batch.

T tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor, nn

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.loss import Loss, TokenScores
from xtuner_core.contracts.model import ModelOutput, Prediction
from xtuner_core.engine import by_dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTotals:
    """What is known of a whole step before its first forward; every micro-batch is divided by it."""

    denominator: float
    """Of the main loss."""
    tokens: int
    """Real tokens."""
    datasets: Mapping[str, float] = field(default_factory=dict)
    """Denominator of the main loss by the name of the dataset; none where they are not told apart."""

    @classmethod
    def of(cls, loss: Loss, batches: Sequence[PackedBatch], datasets: Sequence[str] = ()) -> Self:
        """Sum over the micro-batches, which are still on the host, so that no device is waited for.

        :param datasets: names of the run's datasets.
        """
        return cls(
            denominator=sum(float(loss.denominator(batch)) for batch in batches),
            tokens=sum(batch.tokens for batch in batches),
            datasets=by_dataset.denominators(loss, batches, datasets),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """One micro-batch's share of the objective."""

    parts: Mapping[str, Tensor]
    """Scalars by name, as they are added up; the first is the main loss."""
    statistics: Mapping[str, Tensor]
    """The model's sums over real tokens."""
    datasets: Tensor | None = None
    """Float [N]: the main loss by dataset, without gradient; None where they are not told apart."""

    def total(self) -> Tensor:
        """Add the parts up to the scalar that is differentiated."""
        # Not stacked: the terms may differ in dtype.
        first, *others = self.parts.values()
        return sum(others, start=first)


class Objective:
    """From a micro-batch on the device to the scalar whose gradient is taken.

    A prediction is scored against the labels that it names and divided by the main loss's denominator.
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self._model = model
        self._loss = loss

    def __call__(self, batch: PackedBatch, totals: StepTotals) -> Terms:
        """Compute one micro-batch's shares of the step's losses."""
        return self.terms(self._model(batch), batch, totals)

    def terms(self, output: ModelOutput, batch: PackedBatch, totals: StepTotals) -> Terms:
        """Compute the shares of a micro-batch that has been through the model, by whatever way."""
        # A step without a single weight has sums of zero, which no denominator changes.
        denominator, tokens = totals.denominator or 1.0, max(totals.tokens, 1)
        scored = [(p, *self._score(p, batch)) for p in output.predictions]
        predicted = {p.name: p.weight / denominator * self._loss.total(scores, seen) for p, scores, seen in scored}
        auxiliary = {a.name: a.coefficient / tokens * a.total for a in output.auxiliary}
        assert len(predicted) + len(auxiliary) == len({**predicted, **auxiliary}), "two losses bear one name"
        _, scores, seen = scored[0]
        return Terms(
            parts={**predicted, **auxiliary},
            statistics=output.statistics,
            datasets=by_dataset.losses(self._loss, scores, seen, tuple(totals.datasets.values())),
        )

    def _score(self, prediction: Prediction, batch: PackedBatch) -> tuple[TokenScores, PackedBatch]:
        """Score a prediction; gives the scores and the batch with the labels that it names."""
        targets_T = batch.named(prediction.labels)
        seen = batch if prediction.labels == "labels" else replace(batch, labels=targets_T)
        return score(self._model, prediction, targets_T, entropy=self._loss.entropy), seen


def score(model: nn.Module, prediction: Prediction, targets_T: Tensor, *, entropy: bool) -> TokenScores:
    """Take log-probabilities, float [T], of targets through the model's head, and entropies where asked."""
    head: Any = model.head
    log_probs_T, entropy_T = head(prediction.hidden_TD, targets_T, entropy=entropy)
    return TokenScores(log_probs_T=log_probs_T, entropy_T=entropy_T)
