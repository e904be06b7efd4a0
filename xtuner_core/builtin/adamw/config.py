"""Configuration of the optimizer adamw."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class AdamWConfig:
    """Adam with decoupled weight decay."""

    learning_rate: float = 3e-4
    """Peak learning rate; the schedule multiplies it."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Decoupled decay; a step shrinks a weight by this times its learning rate. Vectors, scalars and the role `norm`
    have none unless a rule of `parameters` says so."""

    def __post_init__(self) -> None:
        if self.learning_rate < 0 or self.weight_decay < 0 or self.eps < 0:
            raise ValueError(
                "learning_rate, weight_decay and eps must not be negative, "
                f"not {self.learning_rate}, {self.weight_decay}, {self.eps}"
            )
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"beta1 and beta2 must lie in [0, 1), not {self.beta1} and {self.beta2}")
