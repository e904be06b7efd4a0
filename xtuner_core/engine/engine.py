"""The engine: a wired model, its loss and its optimizer, and what an algorithm may ask of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from xtuner_core.config.root import EngineConfig
from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.device import Device
from xtuner_core.contracts.loss import Loss, TokenScores
from xtuner_core.contracts.optimizer import Optimizer, Schedule
from xtuner_core.contracts.precision import PrecisionPolicy
from xtuner_core.contracts.sampling import Sample, Sampling
from xtuner_core.engine.masters import MasterWeights
from xtuner_core.engine.non_finite import tolerate
from xtuner_core.engine.objective import Objective, StepTotals, score
from xtuner_core.engine.operators import OperatorRow
from xtuner_core.engine.step import Stepper


@dataclass(kw_only=True)
class Engine:
    """Implements `contracts.algorithm.Engine`, and takes the run's steps."""

    model: nn.Module
    device: Device
    policy: PrecisionPolicy
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    masters: MasterWeights
    settings: EngineConfig
    operators: tuple[OperatorRow, ...] = ()
    """What was bound, for display."""
    datasets: tuple[str, ...] = ()
    """Names of the run's datasets, in the order of the batches' field `DATASET`."""
    steps_taken: int = 0
    """Those that were skipped included."""
    skipped_in_a_row: int = 0
    """Steps skipped since the last that was not; goes into a checkpoint beside `steps_taken`."""

    def __post_init__(self) -> None:
        self._stepper = Stepper(
            model=self.model,
            objective=Objective(self.model, self.loss),
            optimizer=self.optimizer,
            masters=self.masters,
            device=self.device.torch_device,
            clip_norm=self.settings.clip_norm,
        )

    def step(self, batches: Sequence[PackedBatch], *, steps: int) -> StepResult:
        """One optimizer step over a global batch.

        :param batches: its micro-batches, on the host.
        :param steps: of the whole run, for the learning-rate schedule.
        :raises RunError: loss or gradient was not finite, and the settings bear no such step, or not so many.
        """
        step = self.steps_taken + 1
        learning_rate = self.optimizer.learning_rate * self.schedule(step, steps)
        totals = StepTotals.of(self.loss, batches, self.datasets)
        result = self._stepper(batches, totals, step=step, learning_rate=learning_rate)
        self.steps_taken = step
        self.skipped_in_a_row = tolerate(result, self.skipped_in_a_row, self.settings)
        return result

    @torch.no_grad()
    def score(self, batch: PackedBatch) -> TokenScores:
        """Log-probabilities of a batch's labels, float [T] on the device, without gradient."""
        batch = batch.to(self.device.torch_device)
        prediction = self.model(batch).predictions[0]
        return score(self.model, prediction, batch.named(prediction.labels), entropy=self.loss.entropy)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Sample]:
        """Continue prompts with the model as it stands."""
        from xtuner_core.engine.generate import generate

        return generate(self.model, prompts, sampling, device=self.device.torch_device)
