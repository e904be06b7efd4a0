"""The launcher local: starts ranks on this host and watches them. Imports no torch."""

from __future__ import annotations

from xtuner_core.builtin.launchers.config import LocalConfig
from xtuner_core.contracts.launcher import Job, Membership, RankFailure
from xtuner_core.launch.attempt import attempt_here


class Local:
    """Starts ranks on this host; this process is none of them."""

    def __init__(self, config: LocalConfig) -> None:
        self._config = config
        self.max_restarts = config.max_restarts

    def membership(self) -> Membership | None:
        """None: this process starts the ranks."""
        return None

    def start(self, job: Job, attempt: int) -> RankFailure | None:
        """Start every rank and wait until all have ended."""
        config = self._config
        return attempt_here(
            job, attempt, nproc=config.nproc, interface=config.interface, grace_seconds=config.grace_seconds
        )


def build(config: LocalConfig) -> Local:
    """Build the launcher."""
    return Local(config)
