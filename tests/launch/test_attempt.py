"""Ranks that die, hang, run out of memory or are asked to stop: told by rank, step and operation, and none is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xtuner_core.contracts.launcher import Job, RankFailure, Start
from xtuner_core.launch.attempt import attempt_here
from xtuner_core.testing import LauncherContract

STAND_IN = Path(__file__).with_name("stand_in.py")


class TestLocal(LauncherContract):
    plugin, offer = "launchers", "local"
    configs = ({}, {"nproc": 4, "max_restarts": 2})


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while runs(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not runs(pid)


def prepared(folder: Path, *roles: str) -> None:
    (folder / "ranks").mkdir()
    (folder / "roles.json").write_text(json.dumps(roles))


def job(folder: Path, *, timeout: float = 60.0, stop_reason=lambda: None) -> Job:
    start = Start(folder=str(folder))
    return Job(start=start, command=(sys.executable, str(STAND_IN)), stop_reason=stop_reason, timeout_seconds=timeout)


def attempt(folder: Path, *roles: str, **values) -> RankFailure | None:
    prepared(folder, *roles)
    failure = attempt_here(job(folder, **values), 0, nproc=len(roles), interface="lo", grace_seconds=1.0)
    for file in folder.glob("pid-*"):
        assert gone(int(file.read_text())), file
    return failure


def test_ranks_that_finish_are_no_failure(tmp_path):
    (tmp_path / "enough").write_text("")
    assert attempt(tmp_path, "works", "works") is None
    assert len(list(tmp_path.glob("ended-*"))) == 2


def test_a_rank_that_raises_is_named_with_step_operation_and_traceback(tmp_path):
    failure = attempt(tmp_path, "waits", "raises")
    assert failure is not None
    assert failure.rank == 1
    for words in ("rank 1", "7", "backward", "MemoryError", "no room for 3 TB"):
        assert words in failure.message
    assert "Traceback" in failure.details


def test_a_rank_that_is_killed_is_named_with_its_signal(tmp_path):
    failure = attempt(tmp_path, "is killed", "waits")
    assert failure is not None
    assert failure.rank == 0
    for words in ("rank 0", "SIGKILL", "7", "backward"):
        assert words in failure.message


def test_a_hang_is_told_in_time_with_the_stacks_of_all(tmp_path):
    begun = time.monotonic()
    failure = attempt(tmp_path, "waits", "is stopped", timeout=2.0)
    assert failure is not None
    assert time.monotonic() - begun < 40
    assert failure.rank == 1
    assert "stopped" in failure.message
    assert failure.details.count("stand_in.py") >= 2
    assert "rank 0" in failure.details
    assert "rank 1" in failure.details


def test_no_process_of_a_rank_outlives_it(tmp_path):
    failure = attempt(tmp_path, "has a child", "is killed")
    assert failure is not None
    assert failure.rank == 1
    # Unless it was killed before it had one.
    if (tmp_path / "child").exists():
        assert gone(int((tmp_path / "child").read_text()))


def test_a_stop_is_passed_on_to_the_leading_rank(tmp_path):
    prepared(tmp_path, "works")
    failure = attempt_here(job(tmp_path, stop_reason=lambda: "SIGTERM"), 0, nproc=1, interface="lo", grace_seconds=5.0)
    assert failure is None
    assert (tmp_path / "ended-0").read_text() == "SIGTERM"


def test_no_rank_outlives_a_supervisor_that_is_killed(tmp_path):
    prepared(tmp_path, "waits", "waits")
    code = (
        f"import sys; sys.path.insert(0, {str(STAND_IN.parent)!r}); from pathlib import Path\n"
        "from xtuner_core.contracts.launcher import Job, Start\n"
        "from xtuner_core.launch.attempt import attempt_here\n"
        f"job = Job(start=Start(folder={str(tmp_path)!r}), command=({sys.executable!r}, {str(STAND_IN)!r}),\n"
        "          stop_reason=lambda: None, timeout_seconds=600)\n"
        "attempt_here(job, 0, nproc=2, interface='lo', grace_seconds=5.0)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 40
    files = [tmp_path / "pid-0", tmp_path / "pid-1"]
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < end
        assert supervisor.poll() is None
        time.sleep(0.02)
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    assert all(gone(int(file.read_text())) for file in files)


@pytest.mark.parametrize("nproc", [0, -1])
def test_no_rank_at_all_is_refused(nproc):
    from xtuner_core.builtin.launchers.config import LocalConfig

    with pytest.raises(ValueError, match="nproc must be at least 1"):
        LocalConfig(nproc=nproc)
