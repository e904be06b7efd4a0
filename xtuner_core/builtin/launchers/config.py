"""Configuration of the launchers, and how many ranks they make. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from xtuner_core.builtin.launchers.environment import started_by_torchrun, world_size


@dataclass(kw_only=True)
class LocalConfig:
    """Ranks on this host."""

    nproc: int = 1
    """Ranks; each takes a device of its own where the device has several."""
    max_restarts: int = 0
    """How often all ranks are started again after one failed; each time from the newest good checkpoint."""
    grace_seconds: float = 5.0
    """Time that the others have to end by themselves once a rank has failed."""
    interface: str | None = "lo"
    """Network interface to which the ranks' servers are bound, so that no other host reaches them; null leaves it to
    the backend."""

    def __post_init__(self) -> None:
        if self.nproc < 1:
            raise ValueError(f"nproc must be at least 1, not {self.nproc}")
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts must not be negative, not {self.max_restarts}")
        if self.grace_seconds < 0:
            raise ValueError(f"grace_seconds must not be negative, not {self.grace_seconds}")
        if self.interface == "":
            raise ValueError("interface must be the name of one, or null")


def local_world(config: LocalConfig) -> int:
    """How many ranks the launcher local starts."""
    return config.nproc


def torchrun_world(config: None) -> int:
    """How many ranks torchrun has started; 1 where it has not started this process."""
    del config
    return world_size() if started_by_torchrun() else 1
