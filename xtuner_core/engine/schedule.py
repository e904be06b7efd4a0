"""The order of forward and backward over a step's micro-batches; a strategy may bring another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.engine.objective import Objective, StepTotals, Terms


@dataclass(slots=True)
class Sums:
    """Tensors added up by name over micro-batches, without gradient and without waiting for the device."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def add(self, more: Mapping[str, Tensor]) -> None:
        """Add each tensor to the sum of its name."""
        for name, tensor in more.items():
            held = self.tensors.get(name)
            self.tensors[name] = tensor.detach() if held is None else held + tensor.detach()


class Times(dict[str, float]):
    """Seconds of the host by what was done. A device that works on its own may still be at it."""

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        start = perf_counter()
        yield
        self[name] = self.get(name, 0.0) + perf_counter() - start


@dataclass(kw_only=True)
class StepPass:
    """Everything that one step's forward and backward need, and where its sums go."""

    batches: Sequence[PackedBatch]
    """This rank's micro-batches, on the host; as many on every rank."""
    objective: Objective
    totals: StepTotals
    arrive: Callable[[PackedBatch], PackedBatch]
    """Brings a micro-batch to the device."""
    begin: Callable[[bool], None]
    """Is told before each micro-batch's forward pass whether it is the last."""
    times: Times
    losses: Sums = field(default_factory=Sums)
    statistics: Sums = field(default_factory=Sums)
    datasets: list[Tensor] = field(default_factory=list)

    def keep(self, terms: Terms) -> None:
        """Add a micro-batch's terms to the step's sums."""
        self.losses.add(terms.parts)
        self.statistics.add(terms.statistics)
        if terms.datasets is not None:
            self.datasets.append(terms.datasets.detach())


class Schedule(Protocol):
    """Runs forward and backward of a step."""

    def run(self, work: StepPass) -> None:
        """Leave the gradients in the parameters, and the sums in `work`."""


class PlainSchedule:
    """Forward, then backward, of one micro-batch after the other."""

    def run(self, work: StepPass) -> None:
        """Leave the gradients in the parameters, and the sums in `work`."""
        for number, host in enumerate(work.batches, 1):
            with work.times.of("data"):
                batch = work.arrive(host)
            work.begin(number == len(work.batches))
            with work.times.of("forward"):
                terms = work.objective(batch, work.totals)
            with work.times.of("backward"):
                torch.autograd.backward(terms.total())
            work.keep(terms)
