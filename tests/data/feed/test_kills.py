"""Runs that are interrupted, killed or doubled while they tokenise: no process left, no store that is half."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("tokenising.py")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the program on the one cache; what still runs at the end, processes of a broken program too, is killed."""
    (tmp_path / "marks").mkdir()
    started = []

    def begin(workers: int = 2, **given) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), str(tmp_path / "cache"), str(tmp_path / "marks"), str(workers)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, **pipes, **given))
        return started[-1]

    yield begin
    left_over = {reader for reader in readers(tmp_path) if running(reader)}
    for process in [*left_over, *(process.pid for process in started if process.poll() is None)]:
        os.kill(process, signal.SIGKILL)
    for process in started:
        process.communicate()


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def wait_for_sixth_shard(tmp_path: Path) -> set[int]:
    """Wait until the sixth shard was begun; return the processes that read."""
    until(lambda: list((tmp_path / "marks").glob("5-*")))
    return readers(tmp_path)


def readers(tmp_path: Path) -> set[int]:
    return {int(mark.name.partition("-")[2]) for mark in (tmp_path / "marks").glob("*-*")}


def running(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def left(tmp_path: Path) -> list[str]:
    return sorted(path.suffix or path.name for path in (tmp_path / "cache" / "tokens").iterdir())


@pytest.mark.full
def test_ctrl_c_leaves_no_process_and_nothing_half_written(start, tmp_path):
    process = start(start_new_session=True)
    reading = wait_for_sixth_shard(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to every process of the group
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1, errors  # the program's own, none of a process that tokenises
    assert len(reading) == 2
    assert not any(map(running, reading))
    assert left(tmp_path) == [".lock"]


@pytest.mark.full
def test_a_killed_run_leaves_no_process_and_the_next_makes_the_store(start, tmp_path):
    process = start()
    reading = wait_for_sixth_shard(tmp_path)
    process.kill()
    process.wait()
    until(lambda: not any(map(running, reading)), seconds=10)
    assert len(left(tmp_path)) == 2  # the lock, and a folder beside the store's place
    (tmp_path / "marks" / "go").touch()
    output, _ = start(workers=0).communicate(timeout=60)
    (opened,) = output.splitlines()
    assert left(tmp_path) == [".lock", opened.removeprefix("opened ")]


@pytest.mark.full
def test_of_two_runs_at_once_one_makes_the_store_and_the_other_takes_it(start, tmp_path):
    both = [start(workers=0), start(workers=0)]
    wait_for_sixth_shard(tmp_path)
    time.sleep(1)  # the other is about to wait now, if it is not yet starting
    (tmp_path / "marks" / "go").touch()
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert outputs[0] == outputs[1]
    marks = [mark.name.partition("-") for mark in (tmp_path / "marks").glob("*-*")]
    assert sorted(int(index) for index, _, _ in marks) == list(range(10))  # each shard was read once
    assert len({reader for _, _, reader in marks}) == 1


@pytest.mark.full
@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(start, tmp_path, workers):
    (tmp_path / "marks" / "go").touch()

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))

    _, errors = start(workers=workers, preexec_fn=little_room).communicate(timeout=60)
    assert "UsageError: the cache" in errors
    assert "File too large" in errors
    assert left(tmp_path) == [".lock"]
