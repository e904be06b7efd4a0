"""What starts the ranks of a run, or finds that they have been started. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
class Start:
    """Where the run lives that a rank works at, and from where it begins. Plain data."""

    folder: str
    """Of the run, with its plan."""
    checkpoint: str | None = None
    """Good, and gone on from; None where the run begins at its first step."""
    again: bool = False
    """Whether a run was in the folder before."""
    resumed: str | None = None
    """What `--resume` came to, for a person."""
    notices: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """To tell in the run's log: events and their values."""
    log_format: str = "console"
    """Of warnings and errors on standard error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a launcher is to start."""

    start: Start
    """The same for every rank; what ranks leave goes to `ranks` in its folder."""
    command: tuple[str, ...]
    """Starts one rank; the path of a file with its `Membership` and `Start` (`xtuner_core.launch.orders`) is added.
    The rank's standard input is a pipe that the launcher holds: at its end the rank ends itself."""
    stop_reason: Callable[[], str | None]
    """Why the run is asked to stop, or None while it is not; the launcher writes `stop REASON` to rank 0's input."""
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
    error: str | None = None
    """Class of `xtuner_core.errors` where the rank raised one of these; None for whatever was not foreseen."""
    fix: str = ""
    """What to do about it, where the rank knew."""
    notes: tuple[str, ...] = ()
    """Of the error: in which plugin it arose, hints."""


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
