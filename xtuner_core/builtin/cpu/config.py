"""Configuration of the device cpu."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class CpuConfig:
    """How the processor is used."""

    threads: int | None = None
    """Threads of one operation; null leaves the choice to PyTorch."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1 or null, not {self.threads}")
