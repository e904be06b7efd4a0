"""Looks inside one step: a trace of everything that it ran, a snapshot of its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import torch
from torch.profiler import profile, supported_activities

from xtuner_core.config.root import ProfileConfig
from xtuner_core.contracts.device import Device, DeviceFacts, MemoryRecorder
from xtuner_core.errors import UsageError
from xtuner_core.records import Problem

SNAPSHOT = "memory.snapshot"
FOLDER = "profile"
ROWS = 60
"""Operations in the table beside a trace, the slowest first."""


def profile_problems(config: ProfileConfig, facts: DeviceFacts) -> list[Problem]:
    """Refuse a memory snapshot on a device that keeps no record of its memory."""
    if config.memory_step is None or SNAPSHOT in facts.capabilities:
        return []
    message = f"profile.memory_step={config.memory_step}, but {facts.chip} keeps no record of its memory"
    fix = "leave it out; the trace of profile.trace_step shows what each operation allocates"
    return [Problem(message=message, fix=fix, code="requirement", key="profile.memory_step")]


class Profiler:
    """Watches the steps that were asked for, and no other.

    :param folder: the run's; files go to `profile` in it.
    """

    def __init__(self, config: ProfileConfig, device: Device, folder: Path) -> None:
        self._config = config
        self._device = device
        self._folder = folder / FOLDER

    def check(self, steps: int) -> None:
        """Refuse a step that this run does not come to.

        :raises UsageError: names the key.
        """
        for key in ("trace_step", "memory_step"):
            step = getattr(self._config, key)
            if step is not None and step > steps:
                raise UsageError(f"profile.{key}={step}, but this run takes {steps} steps", fix="name one of them")

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Look at what the block does, where it is the step that was asked for."""
        with ExitStack() as stack:
            if step == self._config.memory_step:
                self._folder.mkdir(exist_ok=True)
                recorder = cast(MemoryRecorder, self._device)
                stack.enter_context(recorder.record_memory(self._file(step, "memory.pickle")))
            if step == self._config.trace_step:
                self._folder.mkdir(exist_ok=True)
                stack.enter_context(self._trace(step))
            yield

    @contextmanager
    def _trace(self, step: int) -> Iterator[None]:
        self._device.synchronize()
        activities = supported_activities()  # type: ignore[no-untyped-call]
        with profile(
            activities=activities, record_shapes=True, profile_memory=True, with_flops=True, acc_events=True
        ) as watch:
            yield
            self._device.synchronize()
        watch.export_chrome_trace(str(self._file(step, "trace.json.gz")))
        table = watch.key_averages().table(sort_by="self_cpu_time_total", row_limit=ROWS)
        heading = f"step {step}, torch {torch.__version__}, {self._device.torch_device}\n"
        self._file(step, "operations.txt").write_text(heading + table, encoding="utf-8")

    def _file(self, step: int, name: str) -> Path:
        return self._folder / f"step-{step:08d}.{name}"
