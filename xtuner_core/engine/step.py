"""One optimizer step over a global batch, however it is split into micro-batches and over ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.optimizer import Optimizer
from xtuner_core.contracts.parallelism import Parallelism
from xtuner_core.engine.by_dataset import by_name
from xtuner_core.engine.masters import MasterWeights
from xtuner_core.engine.non_finite import explain
from xtuner_core.engine.objective import Objective, StepTotals
from xtuner_core.engine.ranks.reduction import Reduction
from xtuner_core.engine.schedule import Schedule, StepPass, Times

_NORM = "\0norm"
"""Stands among the losses while they are read; no loss bears such a name."""
_DATASETS = "\0datasets"
"""Stands among the statistics while they are read."""
_STOP = "\0stop"
"""How many ranks are asked to stop."""


class Stepper:
    """Forward, backward and update of one global batch; every rank takes the step with its share of it.

    A step whose loss or gradient is not finite on any rank is applied on none: weights and optimizer keep their bits.

    :param arrive: brings a micro-batch to the device.
    :param asked_to_stop: whether this rank is.
    :param clip_norm: largest norm of the whole gradient, or None.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        masters: MasterWeights,
        reduction: Reduction,
        strategies: Sequence[Parallelism],
        schedule: Schedule,
        arrive: Callable[[PackedBatch], PackedBatch],
        asked_to_stop: Callable[[], bool],
        at: Callable[[str], None],
        device: torch.device,
        clip_norm: float | None,
    ) -> None:
        self._model: Any = model
        self._objective = objective
        self._optimizer = optimizer
        self._masters = masters
        self._reduction = reduction
        self._strategies = tuple(strategies)
        self._schedule = schedule
        self._arrive = arrive
        self._asked_to_stop = asked_to_stop
        self._at = at
        self._device = device
        self._clip_norm = clip_norm
        self.stops = 0
        """Ranks that were asked to stop when the last step was taken."""

    def __call__(
        self, batches: Sequence[PackedBatch], totals: StepTotals, *, step: int, learning_rate: float
    ) -> StepResult:
        """Take a step.

        :param batches: this rank's micro-batches on the host; their split changes nothing but rounding.
        :param totals: of all micro-batches of all ranks together (`StepTotals.of`).
        """
        start, times = perf_counter(), Times()
        work = self._pass(batches, totals, times)
        self._at("forward and backward")
        self._schedule.run(work)
        self._at("gradient reduction")
        with times.of("backward"):
            grads = self._masters.gradients.sums()
            self._reduction.gradients(grads)
            shared, scalars, summed = self._shared(work, grads)
        applied = all(math.isfinite(value) for value in scalars.values())
        norm = scalars.pop(_NORM)
        reason = "" if applied else explain(scalars, grads, self._masters.optimized, self._largest)
        self._at("optimizer")
        with times.of("optimizer"):
            if applied:
                self._apply(grads, norm, learning_rate, {name: shared[name] for name in work.statistics.tensors})
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

    def _pass(self, batches: Sequence[PackedBatch], totals: StepTotals, times: Times) -> StepPass:
        return StepPass(
            batches=batches,
            objective=self._objective,
            totals=totals,
            arrive=self._arrive,
            begin=self._begin,
            times=times,
        )

    def _begin(self, last: bool) -> None:
        for strategy in self._strategies:
            strategy.micro_batch(self._model, last=last)

    def _shared(
        self, work: StepPass, grads: Sequence[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
        """The step's numbers over all ranks: as tensors by name, the losses and the norm, everything else."""
        losses, statistics = work.losses.tensors, dict(work.statistics.tensors)
        if work.datasets:
            statistics[_DATASETS] = torch.stack(work.datasets).sum(0)
        shares = {**losses, **statistics, _NORM: self._reduction.squares(grads)}
        shares[_STOP] = shares[_NORM].new_tensor(float(self._asked_to_stop()))
        shared = self._reduction.add(shares, whole=(_NORM, _STOP))
        # The one place where the host waits for the device.
        wanted = {name: shared[name] for name in (*losses, _NORM, _STOP)}
        found, summed = read(wanted, {name: shared[name] for name in statistics})
        self.stops = int(found.pop(_STOP))
        found[_NORM] = self._reduction.norm(found[_NORM])
        return shared, found, summed

    def _largest(self, number: int) -> int:
        return self._reduction.largest(number, self._device)

    def _apply(
        self, grads: Sequence[Tensor], norm: float, learning_rate: float, statistics: Mapping[str, Tensor]
    ) -> None:
        limit = self._clip_norm
        scale = 1.0 if limit is None or norm <= limit else limit / norm
        self._optimizer.step(grads, learning_rate=learning_rate, grad_scale=scale)
        self._masters.publish()
        with torch.no_grad():
            self._model.after_step(statistics)


def read(scalars: Mapping[str, Tensor], arrays: Mapping[str, Tensor]) -> tuple[dict[str, float], dict[str, Any]]:
    """Read numbers and nested lists of numbers, in one transfer from the device."""
    tensors = [*scalars.values(), *arrays.values()]
    host = torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu()
    parts = torch.split(host, [tensor.numel() for tensor in tensors])
    values: list[Any] = [part.reshape(tensor.shape).tolist() for part, tensor in zip(parts, tensors, strict=True)]
    named = list(zip([*scalars, *arrays], values, strict=True))
    return dict(named[: len(scalars)]), dict(named[len(scalars) :])
