"""Inputs of recomputed modules in host memory, brought back in the backward pass one module ahead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self
from weakref import ref

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from xtuner_core.builtin.recompute.kept import memory_of
from xtuner_core.contracts.device import HostCopy, Offloading


class _Sent:
    """A tensor in host memory, and the one that was sent before it: the backward pass needs that one next."""

    def __init__(self, copy: HostCopy, before: ref[_Sent] | None) -> None:
        self.copy, self._before = copy, before

    def tensor(self) -> Tensor:
        tensor = self.copy.tensor()
        before = self._before() if self._before is not None else None
        if before is not None:
            before.copy.start()
        return tensor


class Offload:
    """What one device keeps for a run's recomputed modules."""

    def __init__(self, device: Offloading) -> None:
        self._device = device
        self._last: ref[_Sent] | None = None

    def of(self, arguments: Sequence[Any]) -> saved_tensors_hooks:
        """Send those arguments that a gradient is taken of; others (a mask, angles) are shared by all layers."""
        tensors = [argument for argument in arguments if isinstance(argument, Tensor) and argument.requires_grad]
        sent = {memory_of(tensor) for tensor in tensors}
        return saved_tensors_hooks(lambda tensor: self._send(tensor) if memory_of(tensor) in sent else tensor, _unpack)

    def _send(self, tensor: Tensor) -> _Sent:
        sent = _Sent(self._device.to_host(tensor), self._last)
        self._last = ref(sent)
        return sent

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A copied model lives on the same device.
        return self


def _unpack(packed: _Sent | Tensor) -> Tensor:
    return packed.tensor() if isinstance(packed, _Sent) else packed
