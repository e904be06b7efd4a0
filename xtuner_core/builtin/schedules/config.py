"""Configuration of the schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class ConstantConfig:
    """Linear warm-up, then constant."""

    warmup_steps: int | None = None
    """Steps until the peak; null takes `warmup_fraction` of the run."""
    warmup_fraction: float = 0.0
    """Share of the run's steps until the peak, where `warmup_steps` is null."""

    def __post_init__(self) -> None:
        _check_stage("warmup", self.warmup_steps, self.warmup_fraction)


@dataclass(kw_only=True)
class CosineConfig(ConstantConfig):
    """Linear warm-up, then half a cosine."""

    warmup_fraction: float = 0.05
    """Share of the run's steps until the peak, where `warmup_steps` is null."""
    final_fraction: float = 0.1
    """Factor at the last step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_final(self.final_fraction)


@dataclass(kw_only=True)
class LinearConfig(ConstantConfig):
    """Linear warm-up, then linear down."""

    warmup_fraction: float = 0.05
    """Share of the run's steps until the peak, where `warmup_steps` is null."""
    final_fraction: float = 0.0
    """Factor at the last step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_final(self.final_fraction)


@dataclass(kw_only=True)
class WsdConfig(ConstantConfig):
    """Warm-up, stable, decay: the peak is kept until the last steps."""

    warmup_fraction: float = 0.05
    """Share of the run's steps until the peak, where `warmup_steps` is null."""
    decay_steps: int | None = None
    """Last steps, over which it decays; null takes `decay_fraction` of the run."""
    decay_fraction: float = 0.1
    """Share of the run's steps over which it decays, where `decay_steps` is null."""
    shape: Literal["linear", "cosine", "1-sqrt"] = "1-sqrt"
    """Form of the decay."""
    final_fraction: float = 0.0
    """Factor at the last step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_stage("decay", self.decay_steps, self.decay_fraction)
        _check_final(self.final_fraction)
        if self.warmup_steps is None and self.decay_steps is None and self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError(
                f"warm-up and decay overlap: warmup_fraction {self.warmup_fraction} and "
                f"decay_fraction {self.decay_fraction} are more than 1 together"
            )


def _check_stage(name: str, steps: int | None, fraction: float) -> None:
    if steps is not None and steps < 0:
        raise ValueError(f"{name}_steps must not be negative, not {steps}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"{name}_fraction must lie in [0, 1], not {fraction}")


def _check_final(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise ValueError(f"final_fraction must lie in [0, 1], not {fraction}")
