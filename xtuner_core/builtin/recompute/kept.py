"""Keeping a call inside a region that is recomputed: it is made once, whatever it is made of.

Of a kept call remain its outputs and what it saved for its own backward pass, save its inputs: those the region's
recomputation brings back like every other tensor. A call that no dispatch mode can look into (a kernel in C, a
collective, a choice of experts) is kept like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks

Memory: TypeAlias = tuple[int, int | torch.SymInt, torch.Size, tuple[int, ...], torch.dtype]
"""What tells a tensor from every other one that lives at the same time."""


def memory_of(tensor: Tensor) -> Memory:
    """Where a tensor lies, on the meta device too."""
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


class _Carrier(Function):
    """Saves tensors for whoever holds its node; its output belongs to no graph that is differentiated."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return anchor.new_empty(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise AssertionError("nothing is differentiated with respect to a carrier")


class Inputs:
    """The tensors that a kept call is given, as the hooks around it see them.

    They are saved under the hooks of the region, hence recomputed with it; the call's own saved tensors are compared
    with them and replaced by their place where one is saved again.
    """

    def __init__(self, arguments: Sequence[Any]) -> None:
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        self._places = {memory_of(tensor): place for place, tensor in enumerate(tensors)}
        anchor = torch.empty(0, requires_grad=True)
        self._node: Any = _Carrier.apply(anchor, *(tensor.detach() for tensor in tensors)).grad_fn  # type: ignore[no-untyped-call]
        self._found: tuple[Tensor, ...] | None = None

    def pack(self, tensor: Tensor) -> _Input | Tensor:
        """What is kept in the place of a tensor that the call saves."""
        place = self._places.get(memory_of(tensor))
        return tensor if place is None else _Input(self, place)

    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs again. The region's hooks give each of them out once, hence they are held from then on."""
        if self._found is None:
            self._found = self._node.saved_tensors
        return self._found


class _Input(NamedTuple):
    inputs: Inputs
    place: int


def _unpack(packed: _Input | Tensor) -> Tensor:
    return packed.inputs.tensors()[packed.place] if isinstance(packed, _Input) else packed


class KeptTensor(NamedTuple):
    """A tensor out of a kept call, without its graph: whoever holds the region's outputs must not hold that."""

    tensor: Tensor
    requires_grad: bool
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> KeptTensor:
        """Keep it."""
        return cls(tensor.detach(), tensor.requires_grad, tensor._version)

    def again(self) -> Tensor:
        """The same values, to be used in the recomputation."""
        assert self.tensor._version == self.version, "the output of a kept call was overwritten before its backward"
        return self.tensor.detach().requires_grad_(self.requires_grad)


def keep(call: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, Any]:
    """Make a call whose results are to be kept.

    :return: its output, and the same to be given to `keep_again`.
    """
    inputs = Inputs(arguments)
    with saved_tensors_hooks(inputs.pack, _unpack):
        output = call(*arguments)
    return output, each(output, Tensor, KeptTensor.of)


def keep_again(kept: Any, arguments: Sequence[Any]) -> Any:
    """In the recomputation, the output of a kept call, which is not made."""
    Inputs(arguments)
    return each(kept, KeptTensor, KeptTensor.again)


def each(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """A copy of tuples, lists, mappings and dataclasses, with everything of one kind in them changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, tuple | list):
        changed = [each(item, kind, change) for item in value]
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)
    if isinstance(value, dict):
        return {key: each(item, kind, change) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        old = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        new = {name: each(item, kind, change) for name, item in old.items()}
        return value if all(new[name] is old[name] for name in old) else replace(value, **new)
    return value
