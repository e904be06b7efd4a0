"""The observer tensorboard, read back record by record from the format's description."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from xtuner_core.builtin.tensorboard.config import TensorBoardConfig
from xtuner_core.builtin.tensorboard.observer import build, curves
from xtuner_core.contracts.observer import RunEnd, RunStart, RunStep

Steps = Callable[..., RunStep]


def events(folder: Path) -> list[Event]:
    """Every event of every file, in the order of their writing: length, its CRC, bytes, their CRC."""
    found = []
    for file in sorted((folder / "tensorboard").iterdir()):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            found.append(Event.FromString(data[place + 12 : place + 12 + length]))
            place += 12 + length + 4
        assert place == len(data), "the last record is whole"
    return found


def live(folder: Path, run_step: Steps, *, first: int, steps: int, every: int = 1) -> None:
    observer = build(TensorBoardConfig(every=every), folder=folder)
    observer.on_start(RunStart(folder=folder, steps=steps, steps_done=first - 1, summary={"model": "tiny"}))
    for step in range(first, steps + 1):
        observer.on_step(run_step(step, steps, loss=float(step), metrics={"held_out.loss": 1.5}))
    observer.on_end(RunEnd(status="finished", steps=steps, seconds=1.0, summary={}))


def test_every_figure_of_a_step_is_a_point_of_a_curve(tmp_path: Path, run_step: Steps):
    live(tmp_path, run_step, first=1, steps=3)
    points = {(e.step, v.tag): v.simple_value for e in events(tmp_path) for v in e.summary.value}
    assert [points[step, "train/loss"] for step in (1, 2, 3)] == [1.0, 2.0, 3.0]
    assert points[2, "held_out/loss"] == 1.5
    assert points[2, "seconds/step"] == 0.25
    assert {tag for step, tag in points if step == 3} >= set(curves(run_step(3)))


def test_every_so_many_steps_and_the_last(tmp_path: Path, run_step: Steps):
    live(tmp_path, run_step, first=1, steps=7, every=3)
    written = [e.step for e in events(tmp_path) for v in e.summary.value if v.tag == "train/loss"]
    assert written == [3, 6, 7]


def test_a_resumed_run_declares_void_what_was_written_after_its_checkpoint(tmp_path: Path, run_step: Steps):
    live(tmp_path, run_step, first=1, steps=5)
    live(tmp_path, run_step, first=4, steps=5)
    starts = [e.step for e in events(tmp_path) if e.session_log.status == SessionLog.START]
    assert starts == [4]


def test_a_figure_that_is_not_known_is_left_out(run_step: Steps):
    assert "train/mfu" not in curves(run_step(1))


def test_points_further_apart_than_never_are_refused():
    with pytest.raises(ValueError, match="every must be at least 1"):
        TensorBoardConfig(every=0)
