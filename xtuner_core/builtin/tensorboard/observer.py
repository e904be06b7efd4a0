"""Event files that TensorBoard shows, written by tensorboardX: one event a step with all its figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from xtuner_core.builtin.tensorboard.config import TensorBoardConfig
from xtuner_core.contracts.observer import RunEnd, RunStart, RunStep

FOLDER = "tensorboard"


class TensorBoardObserver:
    """Writes curves grouped as their names are: `held_out.loss` becomes `held_out/loss`."""

    def __init__(self, config: TensorBoardConfig, folder: Path) -> None:
        self._every = config.every
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def on_start(self, start: RunStart) -> None:
        """Open the file; what an earlier process wrote of steps that are taken again is declared void."""
        purge = {"purge_step": start.steps_done + 1} if start.steps_done else {}
        self._writer = SummaryWriter(str(self._folder), write_to_disk=True, **purge)
        text = json.dumps(dict(start.summary), indent=2, default=str)
        self._writer.add_text("run", f"```json\n{text}\n```", global_step=start.steps_done)

    def on_step(self, step: RunStep) -> None:
        """Write the figures of a step."""
        assert self._writer is not None, "on_start comes first"
        if step.result.step % self._every and step.result.step != step.steps:
            return
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in curves(step).items()]
        self._writer.file_writer.add_summary(Summary(value=values), step.result.step)

    def on_end(self, end: RunEnd) -> None:
        """Write out what is left, and close."""
        del end
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def curves(step: RunStep) -> dict[str, float]:
    """Name every number of a step as TensorBoard groups it: those without a dot of their own stand under `train`."""
    result = step.result
    own = {
        "loss": result.loss,
        "grad_norm": result.grad_norm,
        "learning_rate": result.learning_rate,
        "tokens": result.tokens,
        "tokens_per_second": step.tokens_per_second,
        "model_flops_per_second": step.model_flops_per_second,
        "mfu": step.mfu,
        "memory_peak_bytes": step.memory_peak_bytes,
    }
    nested = {"seconds": {"step": result.seconds, **result.times}, "auxiliary": result.auxiliary}
    named = {**own, **dict(_dotted(nested)), **step.metrics}
    return {_tag(name): float(value) for name, value in named.items() if value is not None}


def _dotted(groups: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for group, values in groups.items():
        for name, value in values.items():
            yield f"{group}.{name}", value


def _tag(name: str) -> str:
    group, dot, rest = name.partition(".")
    return f"{group}/{rest}" if dot else f"train/{name}"


def build(config: TensorBoardConfig, *, folder: Path) -> TensorBoardObserver:
    """Build the observer of `config`; nothing is written before the run starts."""
    return TensorBoardObserver(config, folder / FOLDER)
