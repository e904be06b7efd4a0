"""Closed forms of the schedules; s is the step from 1 to S, W the steps of the warm-up.

Warm-up, s <= W: s / W. After it, constant: 1; cosine (Loshchilov and Hutter, arXiv 1608.03983, eq. 5), with f
the final fraction: f + (1 - f) * (1 + cos(pi * (s - W) / (S - W))) / 2, which is f at the last step.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi

from xtuner_core.builtin.cosine.config import ConstantConfig, CosineConfig


@dataclass(frozen=True, slots=True)
class WarmupCosine:
    """Factor on the learning rate; a `final_fraction` of 1 keeps it constant after the warm-up."""

    warmup_steps: int | None
    warmup_fraction: float
    final_fraction: float

    def __call__(self, step: int, steps: int) -> float:
        """Factor of the `step`-th of `steps` optimizer steps, counted from 1."""
        warmup = round(self.warmup_fraction * steps) if self.warmup_steps is None else self.warmup_steps
        if step < warmup:
            return step / warmup
        progress = (step - warmup) / max(1, steps - warmup)
        return self.final_fraction + (1 - self.final_fraction) * (1 + cos(pi * min(progress, 1.0))) / 2


def cosine(config: CosineConfig) -> WarmupCosine:
    """Build the schedule cosine."""
    return WarmupCosine(config.warmup_steps, config.warmup_fraction, config.final_fraction)


def constant(config: ConstantConfig) -> WarmupCosine:
    """Build the schedule constant."""
    return WarmupCosine(config.warmup_steps, config.warmup_fraction, final_fraction=1.0)
