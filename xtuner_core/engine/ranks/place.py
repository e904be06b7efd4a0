"""Where a process stands in its run: which rank it is, who watches it, and what it must know of the run's home."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from xtuner_core.contracts.device import Device
from xtuner_core.contracts.launcher import Membership
from xtuner_core.engine.home import Home
from xtuner_core.engine.ranks.heartbeat import NoHeartbeat, Pulse
from xtuner_core.engine.ranks.world import World, joined

PREPARING = "preparing"
"""What the leading rank does while the others wait for its first order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A rank, and who is told what it does."""

    membership: Membership = field(default_factory=Membership)
    pulse: Pulse = field(default_factory=NoHeartbeat)
    watched: bool = True
    """Whether another process watches this one, as far as that is needed."""

    @contextmanager
    def joined(self, device: Device, timeout_seconds: float) -> Iterator[World]:
        """Join the others."""
        with joined(self.membership, device, timedelta(seconds=timeout_seconds)) as world:
            yield world


def home_data(home: Home) -> Mapping[str, Any]:
    """What the ranks that follow must know of the run's home."""
    return {
        "folder": str(home.folder),
        "checkpoint": None if home.checkpoint is None else str(home.checkpoint),
        "again": home.again,
    }
