"""What ranks say to each other in a block of work, and how often its host waits for the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from xtuner_core.engine.ranks.groups import RankGroups

_SENT = {
    "allreduce_": "all_reduce",
    "_allgather_base_": "all_gather",
    "allgather_": "all_gather",
    "allgather_into_tensor_coalesced_": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_": "reduce_scatter",
    "alltoall_base_": "all_to_all",
    "alltoall_": "all_to_all",
    "broadcast_": "broadcast",
    "send": "send",
    "gather_": "gather",
    "scatter_": "scatter",
}
"""Operations of c10d by what they are called here."""
_INPUT = {"_allgather_base_": 1, "_reduce_scatter_base_": 1, "allgather_": 1, "alltoall_base_": 1, "alltoall_": 1}
"""Which argument holds what a rank gives, where it is not the first."""
_WAITS = ("_local_scalar_dense",)


class Collectives(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts collectives by their kind and the axes of their group, the bytes that this rank gives to each, and waits.

    :param groups: names the process groups; one that it has not made is called `world`.
    """

    def __init__(self, groups: RankGroups) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._groups = groups
        self.calls: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()
        self.launches = 0
        """Operations of PyTorch of any kind."""
        self.waits = 0
        """Reads of a number on the device by the host."""

    def rows(self) -> list[dict[str, Any]]:
        """One row for each kind and axes: `collective`, `axes`, `calls`, `bytes`."""
        return [
            {"collective": kind, "axes": axes, "calls": self.calls[kind, axes], "bytes": self.bytes[kind, axes]}
            for kind, axes in sorted(self.calls)
        ]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count, and go on."""
        space, _, name = func.name().partition("::")
        name = name.partition(".")[0]
        self.launches += 1
        self.waits += name in _WAITS
        if space == "c10d" and name in _SENT:
            key = _SENT[name], self._axes(args)
            self.calls[key] += 1
            self.bytes[key] += sum(tensor.nbytes for tensor in _tensors(args[_INPUT.get(name, 0)]))
        return func(*args, **(kwargs or {}))

    def _axes(self, args: Sequence[Any]) -> str:
        boxed = next(
            each for each in args if isinstance(each, torch.ScriptObject) and "ProcessGroup" in str(each._type())
        )
        name = dist.ProcessGroup.unbox(boxed).group_name
        found = [axes for axes, group in self._groups.made.items() if group.group_name == name]
        return "+".join(found[0]) if found else "world"


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
        return
    for item in given:
        yield from _tensors(item)
