"""Short trainings under layouts of the ranks: losses, first gradients and last weights, whole, to compare layouts by.

A function of this module runs on every rank (`testing.ranks.run_ranks`); the leading rank writes what it found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.launcher import Membership
from xtuner_core.contracts.weights import Part
from xtuner_core.engine.build import Watch, build_engine
from xtuner_core.engine.engine import Engine
from xtuner_core.engine.inputs import opened_device
from xtuner_core.engine.objective import StepTotals
from xtuner_core.engine.ranks.crew import END
from xtuner_core.engine.ranks.groups import RankGroups
from xtuner_core.engine.ranks.meeting import made_crew
from xtuner_core.engine.ranks.world import joined
from xtuner_core.errors import ComposeError, ConfigError
from xtuner_core.parts import Parts
from xtuner_core.testing.collectives import Collectives
from xtuner_core.testing.documents import packed_steps
from xtuner_core.testing.tiny_run import compose_tiny, tiny_host

STEPS = 3
EXACT = {"name": "fp32", **dict.fromkeys(("parameter", "compute", "reduction", "state"), "float64")}
"""The precision of the trainings: float64 throughout."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training."""

    name: str
    overrides: Mapping[str, Any]
    """Picks and values beside those of the tiny run: `{"parallelism": {"fsdp": {}}}`."""
    plugins: Sequence[str] = ()
    objects: Mapping[str, str] = field(default_factory=dict)
    """Modules that are plugins passed as objects, by the plugin's name."""
    batches: str = "mixed"
    """Name of a way to pack (`testing.documents.packed_steps`)."""
    count: bool = False
    """Whether the collectives of the last step are counted, which takes time."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training found."""

    losses: list[float]
    tensors: dict[str, Tensor]
    """First gradients as `gradient of NAME`, last weights as `weight NAME`, all whole."""
    counts: Mapping[str, Any] = field(default_factory=dict)
    """Where they were counted: `collectives` (rows of `Collectives`), `launches`, `waits` of the leading rank."""


class CountedEngine(Engine):
    """Counts what happens in its steps from the micro-batches on the host to the updated weights."""

    collectives: Collectives | None = None

    def take(self, batches: Sequence[PackedBatch], totals: StepTotals, step: int, learning_rate: float) -> StepResult:
        """Take a step; the last one is counted where that was asked for."""
        counting = self.collectives if step == STEPS else None
        with nullcontext() if counting is None else counting:
            return super().take(batches, totals, step, learning_rate)


class Recording:
    """An optimizer that keeps the first gradients that another is given."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self.learning_rate, self.rates = optimizer.learning_rate, optimizer.rates
        self.first: list[Tensor] = []

    def step(self, grads: Sequence[Tensor], **values: float) -> None:
        """Keep, and hand on."""
        self.first = self.first or [grad.clone() for grad in grads]
        self._optimizer.step(grads, **values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


def train_cases(payload: Mapping[str, Any]) -> None:
    """Train each case on all ranks of the process group; the leading one writes `FOLDER/NAME.safetensors`.

    Of a case that is refused when it is wired the reason is written to `FOLDER/NAME.refused`.

    :param payload: `folder`, and `cases` as plain data.
    """
    for data in payload["cases"]:
        case = Case(**data)
        try:
            found = train_case(case)
        except (ComposeError, ConfigError) as error:
            (Path(payload["folder"]) / f"{case.name}.refused").write_text(str(error))
            continue
        if found is not None:
            file = Path(payload["folder"]) / f"{case.name}.safetensors"
            save_file(found.tensors, file, {"losses": json.dumps(found.losses), "counts": json.dumps(found.counts)})


def trained(folder: Path, name: str) -> dict[str, Tensor]:
    """Read what `train_cases` wrote: losses and tensors under one name each."""
    from safetensors import safe_open

    file = folder / f"{name}.safetensors"
    with safe_open(file, framework="pt") as source:
        losses = json.loads(source.metadata()["losses"])
    return {"losses": torch.tensor(losses, dtype=torch.float64), **load_file(file)}


def counted(folder: Path, name: str) -> dict[str, Any]:
    """Read the counts that `train_cases` wrote."""
    from safetensors import safe_open

    with safe_open(folder / f"{name}.safetensors", framework="pt") as source:
        counts: dict[str, Any] = json.loads(source.metadata()["counts"])
    return counts


def train_case(case: Case) -> Trained | None:
    """Train one case; the leading rank gets what was found."""
    from importlib import import_module

    objects = {name: import_module(module) for name, module in case.objects.items()}
    host = tiny_host(case.plugins, objects=objects)
    membership = _membership()
    launcher = {"name": "local", "nproc": membership.world_size}
    overrides = {"precision": EXACT, "launcher": launcher, **case.overrides}
    parts = Parts(compose_tiny(overrides, host=host).require(), host)
    with (
        opened_device(parts, membership.local_rank) as (device, _),
        joined(membership, device, timedelta(seconds=60)) as world,
    ):
        crew = made_crew(parts, device, world)
        engine = build_engine(parts, device, Watch(stopping=lambda: None), crew=crew)
        recording = Recording(engine.optimizer)
        values = {item.name: getattr(engine, item.name) for item in fields(engine)}
        engine = CountedEngine(**{**values, "optimizer": recording})
        collectives = Collectives(cast("RankGroups", crew.ranks))
        engine.collectives = collectives if case.count and world.leads else None
        if world.leads:
            vocabulary = parts.config("model").vocab_size
            losses = _steps(engine, packed_steps(case.batches, STEPS, vocabulary))
            crew.order(END)
        else:
            losses = []
            crew.follow(engine.handlers(), lambda: None)
        found = _found(engine, recording, losses)
        return found and replace(found, counts=_counts(collectives) if case.count else {})


def _membership() -> Membership:
    if not dist.is_initialized():
        return Membership()
    rank, size = dist.get_rank(), dist.get_world_size()
    return Membership(rank=rank, world_size=size, local_rank=rank, local_world_size=size)


def _counts(collectives: Collectives) -> dict[str, Any]:
    return {"collectives": collectives.rows(), "launches": collectives.launches, "waits": collectives.waits}


def _steps(engine: Engine, steps: Sequence[Sequence[PackedBatch]]) -> list[float]:
    losses: list[float] = []
    for batches in steps:
        result = engine.step(batches, steps=len(steps))
        assert not result.skipped, result.reason
        losses += [result.loss, *result.auxiliary.values(), result.grad_norm]
    return losses


def _found(engine: Engine, recording: Recording, losses: list[float]) -> Trained | None:
    assert engine.layout is not None
    boxes: dict[str, Part] = {}
    for parameter, grad in zip(engine.masters.optimized, recording.first, strict=True):
        boxes[f"weight {parameter.name}"] = engine.layout.part(parameter.name, parameter.tensor)
        boxes[f"gradient of {parameter.name}"] = engine.layout.part(parameter.name, grad)
    data = {name: asdict(replace(part, tensor=part.tensor.clone())) for name, part in boxes.items()}
    gathered = engine.crew.world.control.gather(data)
    return Trained(losses=losses, tensors=_whole(gathered)) if gathered else None


def _whole(ranks: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    whole: dict[str, Tensor] = {}
    for parts in ranks:
        for name, part in parts.items():
            tensor = part["tensor"]
            held = whole.setdefault(name, tensor.new_full(part["shape"], torch.nan))
            region = held[tuple(slice(at, at + size) for at, size in zip(part["start"], tensor.shape, strict=True))]
            if part["writes"]:
                region.copy_(tensor)
    return whole
