"""One optimizer step over a global batch, however it is split into micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.optimizer import Optimizer
from xtuner_core.engine.by_dataset import by_name
from xtuner_core.engine.gradients import gradient_norm
from xtuner_core.engine.masters import MasterWeights
from xtuner_core.engine.non_finite import explain
from xtuner_core.engine.objective import Objective, StepTotals


@dataclass(slots=True)
class Sums:
    """Tensors added up by name over micro-batches, without gradient and without waiting for the device."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def add(self, more: Mapping[str, Tensor]) -> None:
        """Add each tensor to the sum of its name."""
        for name, tensor in more.items():
            held = self.tensors.get(name)
            self.tensors[name] = tensor.detach() if held is None else held + tensor.detach()


class Times(dict[str, float]):
    """Seconds of the host by what was done. A device that works on its own may still be at it."""

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        start = perf_counter()
        yield
        self[name] = self.get(name, 0.0) + perf_counter() - start


class Stepper:
    """Forward, backward and update of one global batch.

    A step whose loss or gradient is not finite is not applied: weights and optimizer keep their bits.

    :param clip_norm: largest norm of the whole gradient, or None.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        masters: MasterWeights,
        device: torch.device,
        clip_norm: float | None,
    ) -> None:
        self._model: Any = model
        self._objective = objective
        self._optimizer = optimizer
        self._masters = masters
        self._device = device
        self._clip_norm = clip_norm

    def __call__(
        self, batches: Sequence[PackedBatch], totals: StepTotals, *, step: int, learning_rate: float
    ) -> StepResult:
        """Take a step.

        :param batches: micro-batches on the host; their split changes nothing but rounding.
        :param totals: of all micro-batches together (`StepTotals.of`).
        """
        start, times = perf_counter(), Times()
        losses, statistics, datasets = self._differentiate(batches, totals, times)
        with times.of("backward"):
            grads = self._masters.gradients.sums()
            # The one place where the host waits for the device.
            wanted = {**losses.tensors, _NORM: gradient_norm(grads)}
            scalars, summed = read(wanted, {**statistics.tensors, **datasets.tensors})
        applied = all(math.isfinite(value) for value in scalars.values())
        norm = scalars.pop(_NORM)
        reason = "" if applied else explain(scalars, grads, self._masters.optimized)
        with times.of("optimizer"):
            if applied:
                self._apply(grads, norm, learning_rate, statistics.tensors)
            self._masters.gradients.clear()
        (_, loss), *auxiliary = scalars.items()
        return StepResult(
            step=step,
            loss=loss,
            grad_norm=norm,
            learning_rate=learning_rate,
            tokens=totals.tokens,
            seconds=perf_counter() - start,
            auxiliary=dict(auxiliary),
            loss_by_dataset=by_name(totals.datasets, summed.pop(_DATASETS, ())),
            statistics=summed,
            skipped=not applied,
            reason=reason,
            times=dict(times),
        )

    def _differentiate(
        self, batches: Sequence[PackedBatch], totals: StepTotals, times: Times
    ) -> tuple[Sums, Sums, Sums]:
        losses, statistics, datasets = Sums(), Sums(), Sums()
        for batch in batches:
            with times.of("data"):
                batch = batch.to(self._device)
            with times.of("forward"):
                terms = self._objective(batch, totals)
            with times.of("backward"):
                torch.autograd.backward(terms.total())
            losses.add(terms.parts)
            statistics.add(terms.statistics)
            datasets.add({} if terms.datasets is None else {_DATASETS: terms.datasets})
        return losses, statistics, datasets

    def _apply(
        self, grads: Sequence[Tensor], norm: float, learning_rate: float, statistics: Mapping[str, Tensor]
    ) -> None:
        limit = self._clip_norm
        scale = 1.0 if limit is None or norm <= limit else limit / norm
        self._optimizer.step(grads, learning_rate=learning_rate, grad_scale=scale)
        self._masters.publish()
        with torch.no_grad():
            self._model.after_step(statistics)


_NORM = "\0norm"
"""Stands among the losses while they are read; no loss bears such a name."""
_DATASETS = "\0datasets"
"""Stands among the statistics while they are read."""


def read(scalars: Mapping[str, Tensor], arrays: Mapping[str, Tensor]) -> tuple[dict[str, float], dict[str, Any]]:
    """Read numbers and nested lists of numbers, in one transfer from the device."""
    tensors = [*scalars.values(), *arrays.values()]
    host = torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu()
    parts = torch.split(host, [tensor.numel() for tensor in tensors])
    values: list[Any] = [part.reshape(tensor.shape).tolist() for part, tensor in zip(parts, tensors, strict=True)]
    named = list(zip([*scalars, *arrays], values, strict=True))
    return dict(named[: len(scalars)]), dict(named[len(scalars) :])
