"""Several processes that tokenise the shards of a part; pieces come back in the order of the shards."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

from xtuner_core import errors
from xtuner_core.contracts.dataset import Shard
from xtuner_core.data.store.shard import Job, Piece, encode_shard
from xtuner_core.data.store.worker import Failure, work
from xtuner_core.errors import ConfigError, RunError, XTunerCoreError

LITTLE = 16 << 20
"""Bytes of source below which no process is started: one second of tokenising, which is what a start costs."""
AHEAD = 2
"""Shards for each process that may be begun before the first unfinished one is done. Their pieces wait on disk; in
memory are a batch for each process and the pieces' counts."""


def processes(workers: int | None, shards: Sequence[Shard]) -> int:
    """How many processes to start; 0 tokenises in the caller's.

    :param workers: the setting `data.workers`.
    :raises ConfigError: some are asked for in a process that may start none.
    """
    childless = multiprocessing.current_process().daemon
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = cores if sum(shard.bytes for shard in shards) >= LITTLE and not childless else 0
    if workers and childless:
        message = f"data.workers={workers} cannot be had: the run is in a daemonic process, which may start no others"
        raise ConfigError(message, fix="set data.workers=0, or start the run in a process that is not daemonic")
    return min(workers, len(shards))


def encode_shards(job: Job, shards: Sequence[Shard], count: int) -> Generator[Piece]:
    """Yield the piece of each shard, in order; closing the iterator ends all processes.

    :param count: processes; 0 tokenises here.
    :raises DataError: of a corpus that cannot be read further.
    :raises RunError: a process died, or something raised what is no error of ours.
    """
    if count == 0:
        yield from (encode_shard(job, shard) for shard in shards)
        return
    with _started(job, count) as crew:
        yield from _in_order(crew, shards, ahead=AHEAD * count)


class _Worker:
    """A process, the end of its pipe, and the shard that it is at."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.shard: Shard | None = None
        self._dataset = job.dataset
        self._process: SpawnProcess = context.Process(target=work, args=(theirs, job), name=f"tokenise {job.dataset}")
        try:
            self._process.start()
        except (TypeError, AttributeError, ValueError) as error:  # what pickling raises
            raise RunError(
                f"dataset {job.dataset} cannot be sent to other processes: {error}",
                fix="set data.workers=0, or make its corpus and encoder picklable",
            ) from error
        finally:
            theirs.close()

    def begin(self, shard: Shard) -> None:
        self.shard = shard
        try:
            self.connection.send(shard)
        except OSError as error:
            raise self._death() from error

    def answer(self) -> Piece | XTunerCoreError:
        """What it made of its shard, or why it could not.

        :raises RunError: it died.
        """
        try:
            answer: Piece | Failure = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        found = self._failed(answer) if isinstance(answer, Failure) else answer
        self.shard = None
        return found

    def end(self) -> None:
        self.connection.close()
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()

    def _death(self) -> RunError:
        self._process.join(timeout=5)
        code = self._process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        return RunError(
            f"a process that tokenises dataset {self._dataset} {how} at {_describe(self.shard)}",
            fix="a kill by the system means too little memory: set data.workers lower; a script that starts runs "
            'does so under `if __name__ == "__main__":`',
        )

    def _failed(self, failure: Failure) -> XTunerCoreError:
        if failure.error:
            kind: Any = getattr(errors, failure.error, RunError)
            known: XTunerCoreError = kind(failure.message, fix=failure.fix, plugin=failure.plugin)
            return known
        text = f"tokenising dataset {self._dataset} failed at {_describe(self.shard)}:\n{failure.message}"
        return RunError(text, fix="report it to the author of the dataset or of the algorithm")


def _describe(shard: Shard | None) -> str:
    assert shard is not None
    place = ", ".join(f"{name} {value}" for name, value in shard.place.items())
    return f"shard {shard.index}" + (f" ({place})" if place else "")


@contextmanager
def _started(job: Job, count: int) -> Iterator[list[_Worker]]:
    """Processes that do not hear the terminal's Ctrl-C, nor a SIGTERM to the group: ending them is the parent's."""
    crew: list[_Worker] = []
    # It would take the signals' mask back if it were started with the first process.
    resource_tracker.ensure_running()
    found = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        try:
            for _ in range(count):
                crew.append(_Worker(job))  # noqa: PERF401  what was started before a failure must be ended
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, found)
        yield crew
    finally:
        for worker in crew:
            worker.end()


def _in_order(crew: Sequence[_Worker], shards: Sequence[Shard], *, ahead: int) -> Iterator[Piece]:
    """Hand out shards, and yield pieces in their order; a failure too has its turn, so that it is always the same."""
    done: dict[int, Piece | XTunerCoreError] = {}
    begun = finished = 0
    while finished < len(shards):
        for worker in crew:
            if worker.shard is None and begun < min(len(shards), finished + ahead):
                worker.begin(shards[begun])
                begun += 1
        busy: dict[Any, _Worker] = {worker.connection: worker for worker in crew if worker.shard is not None}
        for connection in wait(list(busy)):
            shard = busy[connection].shard
            assert shard is not None
            done[shard.index] = busy[connection].answer()
        while finished < len(shards) and shards[finished].index in done:
            answer = done.pop(shards[finished].index)
            if isinstance(answer, XTunerCoreError):
                raise answer
            yield answer
            finished += 1
