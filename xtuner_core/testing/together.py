"""Threads of one process in place of ranks, for tests of what ranks read and write together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Implements `hf.together.Together` for one of several threads.

    :param table: where all of them leave their data, and at `size` what the first shares.
    """

    def __init__(self, rank: int, size: int, barrier: Barrier, table: list[Any]) -> None:
        self.rank, self.size = rank, size
        self._barrier, self._table = barrier, table

    @property
    def leads(self) -> bool:
        """Whether it is the first."""
        return self.rank == 0

    def gather(self, data: Any) -> list[Any]:
        """Data of all, for the first."""
        self._table[self.rank] = ("gather", data)
        self._barrier.wait()
        found = list(self._table[: self.size])
        self._barrier.wait()
        assert {kind for kind, _ in found} == {"gather"}, "ranks take different steps"
        return [each for _, each in found] if self.leads else []

    def share(self, data: Any) -> Any:
        """The first one's data."""
        self._table[self.rank] = ("share", data)
        self._barrier.wait()
        found = list(self._table[: self.size])
        self._barrier.wait()
        assert {kind for kind, _ in found} == {"share"}, "ranks take different steps"
        return found[0][1]


def run_together(size: int, work: Callable[[Threads], T], *, timeout: float = 30.0) -> list[T | BaseException]:
    """Do work on so many threads that can meet: what each returned or raised, by rank.

    :param timeout: seconds after which a thread that waits for another gives up.
    """
    barrier, table = Barrier(size, timeout=timeout), [None] * size

    def guarded(rank: int) -> T | BaseException:
        try:
            return work(Threads(rank, size, barrier, table))
        except BrokenBarrierError:
            raise AssertionError(f"rank {rank} waited for one that had gone") from None
        except BaseException as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(guarded, range(size)))
