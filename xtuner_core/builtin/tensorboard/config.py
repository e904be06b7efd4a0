"""Configuration of the observer tensorboard."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class TensorBoardConfig:
    """Curves for TensorBoard, in `tensorboard` in the run's folder."""

    every: int = 1
    """Steps between two points of a curve."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1, not {self.every}")
