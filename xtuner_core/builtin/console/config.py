"""Configuration of the observer console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class ConsoleConfig:
    """What is shown of a run while it goes."""

    every: int | None = None
    """Steps between two lines; null writes about twenty in a run. The progress bar does not heed it."""
    format: Literal["auto", "text", "json"] = "auto"
    """`auto`: a progress bar on a terminal, text lines elsewhere; `text`, `json`: lines everywhere."""

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ValueError(f"every must be at least 1 or null, not {self.every}")
