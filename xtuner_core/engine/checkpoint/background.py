"""A checkpoint that is written while steps go on: copied to host memory first, then written by a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Thread
from time import perf_counter

import torch
from torch import Tensor

from xtuner_core.contracts.device import Device
from xtuner_core.contracts.weights import Part
from xtuner_core.engine.checkpoint.snapshot import Content

PINNED = "device.pinned_memory"


class HostCopies:
    """Host memory for one checkpoint's tensors, taken at the first and kept for the next.

    It is pinned where the device has the capability, so that all copies are under way before the first is waited for.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._pinned = PINNED in device.facts().capabilities
        self._held: dict[str, Tensor] = {}

    def __call__(self, content: Content) -> Content:
        """The same content, of which the next step changes nothing; what this rank does not write is not copied."""
        named = {entry.parameter for shard in content.files.shards for entry in shard.entries}
        weights = {name: part for name, part in content.weights.items() if name in named}
        copied = replace(
            content,
            weights=self._parts("weights", weights),
            moments=self._parts("moments", content.moments),
            tensors={name: self._copy(f"tensors/{name}", tensor) for name, tensor in content.tensors.items()},
        )
        self._device.synchronize()
        return copied

    def _parts(self, kind: str, parts: Mapping[str, Part]) -> dict[str, Part]:
        return {
            name: replace(part, tensor=self._copy(f"{kind}/{name}", part.tensor)) if part.writes else part
            for name, part in parts.items()
        }

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        held = self._held.get(name)
        if held is None or (held.shape, held.dtype) != (tensor.shape, tensor.dtype):
            held = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._pinned)
            self._held[name] = held
        return held.copy_(tensor.detach(), non_blocking=self._pinned)


class Pending:
    """A save that a thread is at."""

    def __init__(self, step: int, work: Callable[[], None]) -> None:
        self.step = step
        self.seconds = 0.0
        """That the work took; told once it was waited for."""
        self._work = work
        self._error: BaseException | None = None
        # A process that ends badly does not wait for other ranks that may be gone.
        self._thread = Thread(target=self._run, name=f"checkpoint of step {step}", daemon=True)
        self._thread.start()

    def wait(self) -> BaseException | None:
        """Wait for the thread; gives what the work raised."""
        self._thread.join()
        return self._error

    def _run(self) -> None:
        start = perf_counter()
        try:
            self._work()
        except BaseException as error:
            self._error = error
        self.seconds = perf_counter() - start
