"""Closed forms of the schedules: warm-up, stable and decay, one formula for all of them.

s is the step from 1 to S, W the steps of the warm-up, D those of the decay, f the final fraction.

Warm-up, s <= W: s / W. Stable, W < s <= S - D: 1. Decay, with p = (s - S + D) / D, which is 1 at the last step:
f + (1 - f) * shape(p), where shape is

- linear: 1 - p (Hägele et al. 2024, arXiv 2405.18392, eq. 1 and section 3);
- cosine: (1 + cos(pi p)) / 2 (Loshchilov and Hutter 2016, arXiv 1608.03983, eq. 5);
- 1-sqrt: 1 - sqrt(p) (Hägele et al. 2024, section 3).

`constant` has D = 0, `cosine` and `linear` decay from the warm-up on (D = S - W), and `wsd` (Hu et al. 2024, arXiv
2404.06395, section 4) over the last steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi, sqrt

from xtuner_core.builtin.schedules.config import ConstantConfig, CosineConfig, LinearConfig, WsdConfig
from xtuner_core.errors import ConfigError

SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda p: 1 - p,
    "cosine": lambda p: (1 + cos(pi * p)) / 2,
    "1-sqrt": lambda p: 1 - sqrt(p),
}
"""From p in [0, 1] to 1 at 0 and 0 at 1."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A number of steps, or a share of the run's."""

    steps: int | None
    fraction: float

    def of(self, steps: int) -> int:
        """Steps of the stage in a run of so many."""
        return round(self.fraction * steps) if self.steps is None else self.steps


REST = Stage(None, 1.0)
"""What the warm-up leaves."""


@dataclass(frozen=True, slots=True)
class WarmupStableDecay:
    """Factor on the learning rate."""

    warmup: Stage
    decay: Stage
    shape: Callable[[float], float] = SHAPES["linear"]
    final_fraction: float = 1.0

    def __call__(self, step: int, steps: int) -> float:
        """Factor of the `step`-th of `steps` optimizer steps, counted from 1.

        :raises ConfigError: warm-up and decay do not fit into so many steps.
        """
        warmup, decay = self._lengths(steps)
        if step < warmup:
            return step / warmup
        if not decay or step <= steps - decay:
            return 1.0
        shape = self.shape(min(1.0, (step - steps + decay) / decay))
        return self.final_fraction + (1 - self.final_fraction) * shape

    def _lengths(self, steps: int) -> tuple[int, int]:
        warmup, decay = self.warmup.of(steps), self.decay.of(steps)
        if self.decay.steps is None:
            # Shares that fit may overlap by a step once they are rounded.
            decay = min(decay, max(0, steps - warmup))
        if warmup + decay > steps:
            raise ConfigError(
                f"the schedule's warm-up of {warmup} and decay of {decay} steps do not fit into a run of {steps}",
                fix="lower schedule.warmup_steps" + (" or schedule.decay_steps" if decay else "") + ", or train longer",
                plugin="schedules",
            )
        return warmup, decay


def constant(config: ConstantConfig) -> WarmupStableDecay:
    """Build the schedule constant."""
    return WarmupStableDecay(_warmup(config), Stage(0, 0.0))


def cosine(config: CosineConfig) -> WarmupStableDecay:
    """Build the schedule cosine."""
    return WarmupStableDecay(_warmup(config), REST, SHAPES["cosine"], config.final_fraction)


def linear(config: LinearConfig) -> WarmupStableDecay:
    """Build the schedule linear."""
    return WarmupStableDecay(_warmup(config), REST, SHAPES["linear"], config.final_fraction)


def wsd(config: WsdConfig) -> WarmupStableDecay:
    """Build the schedule wsd."""
    decay = Stage(config.decay_steps, config.decay_fraction)
    return WarmupStableDecay(_warmup(config), decay, SHAPES[config.shape], config.final_fraction)


def _warmup(config: ConstantConfig) -> Stage:
    return Stage(config.warmup_steps, config.warmup_fraction)
