"""Loss and gradients of one step, as the engine adds them up, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.loss import Loss
from xtuner_core.contracts.model import ModelOutput
from xtuner_core.engine.objective import Objective, StepTotals
from xtuner_core.engine.schedule import Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Differentiated:
    """What one step found."""

    losses: dict[str, Tensor]
    """Scalars by name, the main loss first."""
    gradients: dict[str, Tensor | None]
    """By qualified name of the parameter."""
    statistics: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """All of it under one name each; a gradient that never came is left out."""
        found = {f"gradient of {name}": grad for name, grad in self.gradients.items() if grad is not None}
        return {**self.losses, **self.statistics, **found}


class WithoutSplitLosses(nn.Module):
    """The model without the auxiliary losses of scope `micro_batch`, which depend on the split by their nature."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.head = self.model.head

    def forward(self, batch: PackedBatch) -> ModelOutput:
        """See the model's own."""
        output: ModelOutput = self.model(batch)
        kept = tuple(item for item in output.auxiliary if item.scope != "micro_batch")
        return replace(output, auxiliary=kept)


def differentiate(model: nn.Module, loss: Loss, batches: Sequence[PackedBatch]) -> Differentiated:
    """Take the gradient of a step over these micro-batches; denominators are those of all of them together."""
    objective, totals = Objective(WithoutSplitLosses(model), loss), StepTotals.of(loss, batches)
    losses, statistics = Sums(), Sums()
    model.zero_grad()
    for batch in batches:
        terms = objective(batch, totals)
        torch.autograd.backward(terms.total())
        losses.add(terms.parts)
        statistics.add(terms.statistics)
    gradients = {name: _copy(parameter.grad) for name, parameter in model.named_parameters()}
    return Differentiated(losses=losses.tensors, gradients=gradients, statistics=statistics.tensors)


def _copy(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.clone()


def distance(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected| in Euclidean norms; where one is all zeros, the other must be."""
    difference, norm = (found - expected).norm().item(), expected.norm().item()
    return difference / norm if norm else (0.0 if difference == 0 else float("inf"))


def distances(found: Differentiated, expected: Differentiated) -> dict[str, float]:
    """Distance of every loss, statistic and gradient."""
    ours, theirs = found.tensors(), expected.tensors()
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    return {name: distance(tensor, theirs[name]) for name, tensor in ours.items()}


def log_probabilities(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Float [T]: of the main prediction's labels; 0 where there is none."""
    output: ModelOutput = model(batch)
    head: Any = cast(Any, model).head
    log_probs_T: Tensor = head(output.predictions[0].hidden_TD, batch.labels)[0]
    return log_probs_T
