"""What a run derives from each step: rates, utilisation, memory, balance of the experts."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.device import DeviceFacts
from xtuner_core.contracts.model import ModelConfig
from xtuner_core.contracts.observer import RunStep
from xtuner_core.engine.engine import Engine

WINDOW = 20
"""Steps over which rates are taken."""


_TOTALS = ("tokens", "skipped", "loss", "seconds")


class Meter:
    """Turns steps into what observers are told.

    :param config: the model's, which knows the operations of a step.
    :param steps: of the whole run.
    """

    def __init__(self, *, config: ModelConfig, engine: Engine, facts: DeviceFacts, steps: int) -> None:
        self._config = config
        self._device = engine.device
        self._rates = engine.optimizer.rates
        self._peak_flops = facts.peak_flops.get(str(engine.policy.compute).removeprefix("torch."))
        self._steps = steps
        self._recent: deque[tuple[int, int, float]] = deque(maxlen=WINDOW)
        self.tokens = 0
        self.skipped = 0
        self.loss: float | None = None
        """Of the last step; None before the first."""
        self.seconds = 0.0
        """Of all steps, waiting for their batches included."""

    def state_dict(self) -> dict[str, Any]:
        """The totals."""
        return {name: getattr(self, name) for name in _TOTALS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there; rates begin anew."""
        for name in _TOTALS:
            setattr(self, name, state[name])

    def step(
        self, result: StepResult, batches: Sequence[PackedBatch], *, waited: float, more: Mapping[str, float]
    ) -> RunStep:
        """Derive the figures of a step.

        :param waited: seconds until the algorithm gave the batch.
        :param more: the algorithm's metrics.
        """
        lengths = [length for batch in batches for length in batch.lengths[: batch.documents]]
        seconds = result.seconds + waited
        self._recent.append((result.tokens, self._config.flops(lengths), seconds))
        self.tokens += result.tokens
        self.skipped += result.skipped
        self.loss = result.loss
        self.seconds += seconds
        tokens, flops, elapsed = (sum(column) for column in zip(*self._recent, strict=True))
        rate = flops / elapsed
        return RunStep(
            result=result,
            steps=self._steps,
            tokens_per_second=tokens / elapsed,
            model_flops_per_second=rate,
            mfu=None if self._peak_flops is None else rate / self._peak_flops,
            memory_peak_bytes=self._device.memory().peak,
            metrics={
                "seconds.wait": waited,
                "skipped_steps": self.skipped,
                **{f"learning_rate.{name}": result.learning_rate * rate for name, rate in self._rates.items()},
                **{f"loss.{name}": loss for name, loss in result.loss_by_dataset.items()},
                **imbalance(result.statistics),
                **more,
            },
        )


def imbalance(statistics: Mapping[str, Any]) -> dict[str, float]:
    """Divide the largest load of an expert by the mean, layer by layer: from 1 to the number of experts."""
    loads = statistics.get("expert_load", ())
    ratios = {f"expert_imbalance.{layer}": _ratio(load) for layer, load in enumerate(loads)}
    return {**ratios, "expert_imbalance.max": max(ratios.values())} if ratios else {}


def _ratio(load: Sequence[float]) -> float:
    total = sum(load)
    return max(load) * len(load) / total if total else 1.0
