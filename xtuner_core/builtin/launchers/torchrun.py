"""The launcher torchrun: finds that this process is a rank that torchrun started. Imports no torch."""

from __future__ import annotations

from xtuner_core.builtin.launchers.environment import membership, started_by_torchrun
from xtuner_core.contracts.launcher import Job, Membership, RankFailure
from xtuner_core.errors import UsageError


class Torchrun:
    """This process is a rank; torchrun watches it, ends it and starts it again."""

    max_restarts = 0

    def __init__(self, place: Membership) -> None:
        self._place = place

    def membership(self) -> Membership | None:
        """This process's place."""
        return self._place

    def start(self, job: Job, attempt: int) -> RankFailure | None:
        """Never called: the ranks have been started."""
        raise AssertionError(f"torchrun has started the ranks of {job.start.folder} already (attempt {attempt})")


def build(config: None) -> Torchrun:
    """Build the launcher.

    :raises UsageError: torchrun did not start this process.
    """
    del config
    if not started_by_torchrun():
        fix = "start the command with torchrun, or have ranks started on this host: --nproc N"
        raise UsageError("launcher=torchrun, and torchrun did not start this process", fix=fix, plugin="launchers")
    return Torchrun(membership())
