"""What ranks leave in the run's folder, and under which names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = "ranks"


@dataclass(frozen=True, slots=True)
class RankFiles:
    """The files of one rank.

    :param run: the run's folder.
    """

    run: Path
    rank: int

    @property
    def orders(self) -> Path:
        """Its place among the ranks and where the run begins, written by the launcher."""
        return self._named("json")

    @property
    def heartbeat(self) -> Path:
        """Where it is (`engine.ranks.heartbeat`)."""
        return self._named("heartbeat")

    @property
    def stacks(self) -> Path:
        """Python stacks of its threads, whenever it was asked for them or crashed."""
        return self._named("stacks")

    @property
    def failure(self) -> Path:
        """Its last words (`launch.last_words`)."""
        return self._named("failure.json")

    @property
    def output(self) -> Path:
        """What it wrote to standard output and standard error; rank 0 writes to those of the command instead."""
        return self._named("out")

    @property
    def log(self) -> Path:
        """Its log; rank 0's is the run's."""
        return self.run / "log.jsonl" if self.rank == 0 else self._named("log.jsonl")

    def clear(self) -> None:
        """Take away what a rank of an earlier attempt left, but for its log and output."""
        self.heartbeat.parent.mkdir(exist_ok=True)
        for file in (self.orders, self.heartbeat, self.stacks, self.failure):
            file.unlink(missing_ok=True)

    def _named(self, kind: str) -> Path:
        return self.run / FOLDER / f"rank-{self.rank}.{kind}"
