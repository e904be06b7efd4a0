"""Configuration of the schedules cosine and constant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class ConstantConfig:
    """Linear warm-up, then constant."""

    warmup_steps: int | None = None
    """Steps until the peak; null takes `warmup_fraction` of the run."""
    warmup_fraction: float = 0.0
    """Share of the run's steps until the peak, where `warmup_steps` is null."""

    def __post_init__(self) -> None:
        _check(self.warmup_steps, self.warmup_fraction)


@dataclass(kw_only=True)
class CosineConfig:
    """Linear warm-up, then half a cosine."""

    warmup_steps: int | None = None
    """Steps until the peak; null takes `warmup_fraction` of the run."""
    warmup_fraction: float = 0.05
    """Share of the run's steps until the peak, where `warmup_steps` is null."""
    final_fraction: float = 0.1
    """Factor at the last step."""

    def __post_init__(self) -> None:
        _check(self.warmup_steps, self.warmup_fraction)
        if not 0 <= self.final_fraction <= 1:
            raise ValueError(f"final_fraction must lie in [0, 1], not {self.final_fraction}")


def _check(warmup_steps: int | None, warmup_fraction: float) -> None:
    if warmup_steps is not None and warmup_steps < 0:
        raise ValueError(f"warmup_steps must not be negative, not {warmup_steps}")
    if not 0 <= warmup_fraction <= 1:
        raise ValueError(f"warmup_fraction must lie in [0, 1], not {warmup_fraction}")
