"""What a piece of code asks of other ranks and of the device, counted: collectives with their bytes, waits of the host.

It sees what its own thread calls, backward passes on the CPU included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = frozenset({"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2"})
"""Operations whose result, or its size, the host must know; a device is waited for."""


class Collective(NamedTuple):
    """One call."""

    name: str
    """`alltoall_base_`, `_allgather_base_`, `_reduce_scatter_base_`, `allreduce_` …"""
    bytes: int
    """Of the tensors that this rank gives."""


@dataclass(slots=True)
class Watched:
    """What was seen; grows while it is watched."""

    collectives: list[Collective] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)

    def bytes(self, name: str = "") -> int:
        """Of all collectives, or of those of a name."""
        return sum(each.bytes for each in self.collectives if name in ("", each.name))


@contextmanager
def watching(into: Watched | None = None) -> Iterator[Watched]:
    """Count what is called inside.

    :param into: what is added to; None begins anew.
    """
    found = Watched() if into is None else into
    with _Functions(found), _Operations(found):
        yield found


class _Functions(TorchFunctionMode):
    """`tolist` reads memory itself, below every operation."""

    def __init__(self, found: Watched) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.tolist, Tensor.numpy):
            self._found.waits.append(func.__name__)
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, found: Watched) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kind, _, name = str(func._schema.name).partition("::")  # type: ignore[attr-defined]
        if kind == "c10d":
            self._found.collectives.append(Collective(name, _given(name, args)))
        elif name in WAITS:
            self._found.waits.append(name)
        return func(*args, **(kwargs or {}))


def _given(name: str, args: tuple[Any, ...]) -> int:
    """Bytes of what goes in: the `base` forms take an output and an input, the others work in place."""
    tensors = [leaf for leaf in tree_leaves(args[:2]) if isinstance(leaf, torch.Tensor)]
    inputs = tensors[1:] if name.endswith("_base_") else tensors
    return sum(each.numel() * each.element_size() for each in inputs)
