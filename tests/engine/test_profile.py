"""A trace and a memory snapshot of the step that was asked for."""

from __future__ import annotations

import gzip
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from xtuner_core.builtin.cpu.device import CpuDevice
from xtuner_core.config.root import ProfileConfig
from xtuner_core.engine.profile import Profiler, profile_problems
from xtuner_core.errors import UsageError


class Recording(CpuDevice):
    """Keeps a record of its memory, as far as a test can tell."""

    @contextmanager
    def record_memory(self, file: Path):
        yield
        file.write_bytes(b"a record")


def steps(config: ProfileConfig, folder: Path, count: int = 3) -> list[str]:
    device = Recording(threads=None)
    profiler = Profiler(config, device, folder)
    profiler.check(count)
    for step in range(1, count + 1):
        with profiler.watching(step):
            _ = torch.ones(step, step) @ torch.ones(step, step)
    return sorted(file.name for file in (folder / "profile").iterdir()) if (folder / "profile").exists() else []


def test_nothing_is_written_where_nothing_is_asked_for(tmp_path):
    assert steps(ProfileConfig(), tmp_path) == []


def test_the_trace_is_of_the_step_that_was_asked_for(tmp_path):
    assert steps(ProfileConfig(trace_step=2), tmp_path) == [
        "step-00000002.operations.txt",
        "step-00000002.trace.json.gz",
    ]
    trace = json.loads(gzip.decompress((tmp_path / "profile" / "step-00000002.trace.json.gz").read_bytes()))
    products = [event for event in trace["traceEvents"] if event.get("name") == "aten::mm"]
    assert [event["args"]["Input Dims"][0] for event in products] == [[2, 2]]
    assert "aten::mm" in (tmp_path / "profile" / "step-00000002.operations.txt").read_text()


def test_a_device_that_can_writes_a_memory_snapshot(tmp_path):
    assert steps(ProfileConfig(memory_step=3), tmp_path) == ["step-00000003.memory.pickle"]


def test_a_memory_snapshot_is_refused_on_a_device_that_keeps_no_record():
    facts = CpuDevice(threads=None).facts()
    (problem,) = profile_problems(ProfileConfig(memory_step=3), facts)
    assert problem.key == "profile.memory_step"
    able = replace(facts, capabilities=facts.capabilities | {"memory.snapshot"})
    assert not profile_problems(ProfileConfig(memory_step=3), able)


def test_a_step_that_the_run_does_not_come_to_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"profile\.trace_step=4, but this run takes 3 steps"):
        steps(ProfileConfig(trace_step=4), tmp_path)
