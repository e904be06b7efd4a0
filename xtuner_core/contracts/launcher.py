"""What starts the ranks of a run, or finds that they have been started. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """One rank's place among those of its run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Among those of its host."""
    local_world_size: int = 1
    store: str = ""
    """Where ranks meet: `file:PATH` on one host, `tcp:HOST:PORT` (rank 0 serves it), `agent:HOST:PORT` (another
    process does). Each attempt has a place of its own in it."""
    attempt: int = 0
    """How often this run's ranks have been started again."""
    interface: str | None = None
    """Network interface to which the ranks' servers are bound; None leaves it to the backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a launcher is to start."""

    folder: Path
    """Of the run; what ranks leave goes to `folder / "ranks"`."""
    command: tuple[str, ...]
    """Starts one rank; the path of a file with its `Membership` and `Start` as JSON is added to it."""
    stop_reason: Callable[[], str | None]
    """Why the run is asked to stop, or None while it is not; the launcher passes it on to rank 0 as a signal."""
    timeout_seconds: float
    """After so long without progress of any rank the run counts as hung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFailure:
    """Why the ranks of one attempt ended early."""

    rank: int
    message: str
    """One sentence: how it ended, at which step, in which operation."""
    details: str = ""
    """The traceback, or the stacks of all ranks."""


class Launcher(Protocol):
    """Starts ranks and watches them, or says which one this process is."""

    max_restarts: int
    """How often all ranks are started again after a failure."""

    def membership(self) -> Membership | None:
        """This process's place, where it was started as a rank; None where `start` is to start them."""

    def start(self, job: Job, attempt: int) -> RankFailure | None:
        """Start every rank and wait until all have ended; leaves no process behind, however it returns."""


class LauncherFactory(Protocol):
    """What a launcher provider's `factory` names."""

    def __call__(self, config: Any) -> Launcher:
        """Build the launcher of `config`."""
