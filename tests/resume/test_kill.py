"""Runs that are killed, at any instant, and runs whose disk is full: the same command comes to the same end."""

from __future__ import annotations

import json
import resource
import signal
import socket
from time import sleep

import pytest

FOREVER = 100_000


@pytest.fixture(scope="module")
def trials(kill, server, tmp_path_factory):
    return kill.Trials(server, tmp_path_factory.mktemp("kills"), steps=12)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_inside_a_save_comes_to_the_same_end(trials, seed):
    found = trials.kill_inside_a_save(seed)
    assert found["killed"]
    assert found["inside_a_save"]
    assert found["equal"], found


def test_a_run_killed_at_any_instant_comes_to_the_same_end(trials):
    found = trials.kill_at(3)
    assert found["killed"]
    assert found["equal"], found


def test_a_save_cut_short_by_a_full_disk_leaves_the_last_good_one(trials):
    found = trials.fill_the_disk(0)
    assert found["warned"] >= 1
    assert found["checkpoints"]
    assert found["equal"], found


def test_a_flipped_byte_in_the_newest_checkpoint_is_noticed(trials):
    assert trials.flip_a_byte(0)["equal"]


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 120))
def test_twenty_kills(trials, seed):
    kill_it = trials.kill_inside_a_save if seed % 3 == 0 else trials.kill_at
    assert kill_it(seed)["equal"]


# ── leaving by oneself ─────────────────────────────────────────────────────────────────────────────────────────────


def steps_told(folder):
    file = folder / "RUN" / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def starts(folder):
    file = folder / "RUN" / "log.jsonl"
    return file.read_text().count('"event": "run started"') if file.exists() else 0


def test_sigterm_saves_and_leaves_with_75_and_the_same_command_goes_on(command, kill, trials, tmp_path):
    process = command(12, "checkpoint.every_seconds=null", "--resume")
    kill.until(process, lambda: steps_told(tmp_path) >= 2)
    process.send(signal.SIGTERM)
    assert process.wait() == 75, process.complained
    summary = json.loads((tmp_path / "RUN" / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("stopped", "SIGTERM")
    again = command(12, "checkpoint.every_seconds=null", "--resume")
    assert again.wait() == 0, again.complained
    assert kill.ending(tmp_path / "RUN") == trials.expected


def test_a_second_signal_ends_the_run_at_once(command, kill, tmp_path):
    process = command(FOREVER, "algorithm.tokens_per_step=1280000")  # one step takes minutes
    kill.until(process, lambda: starts(tmp_path) == 1)
    process.send(signal.SIGTERM)
    sleep(1.0)
    assert process.poll() is None
    process.send(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM


def test_the_wall_time_limit_leaves_time_for_a_checkpoint_and_exits_with_75(command, tmp_path):
    process = command(FOREVER, "time_limit_seconds=6", "checkpoint.every_steps=1000")
    assert process.wait() == 75, process.complained
    summary = json.loads((tmp_path / "RUN" / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("stopped", "time_limit_seconds")
    assert summary["seconds"] < 6
    assert summary["checkpoint"].endswith(f"step-{summary['steps']:08d}")


def test_a_second_run_in_the_folder_is_refused_with_process_and_host_and_a_dead_one_does_not_block(
    command, kill, tmp_path
):
    first = command(FOREVER)
    kill.until(first, lambda: steps_told(tmp_path) >= 1)
    second = command(FOREVER, "--resume")
    assert second.wait() == 2
    assert f"is in use: process {first.pid} on {socket.gethostname()} runs in it" in second.complained
    first.send(signal.SIGKILL)
    first.wait()
    third = command(FOREVER, "--resume")
    kill.until(third, lambda: starts(tmp_path) == 2)
    third.send(signal.SIGINT)
    assert third.wait() == 130, third.complained


def test_a_last_save_that_the_disk_does_not_take_is_an_error_that_names_the_last_good_one(command, kill, tmp_path):
    process = command(FOREVER, "checkpoint.every_steps=3")
    kill.until(process, lambda: (tmp_path / "RUN" / "checkpoints" / "step-00000003").exists())
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
    kill.until(process, lambda: "checkpoint not saved" in process.complained)
    process.send(signal.SIGTERM)
    assert process.wait() == 5, process.complained
    good = sorted(item.name for item in (tmp_path / "RUN" / "checkpoints").iterdir())
    assert f"cannot be written to {tmp_path / 'RUN' / 'checkpoints'}: File too large" in process.complained
    assert f"the last good one is {good[-1]}" in process.complained
    assert not [name for name in good if name.startswith(".")]
