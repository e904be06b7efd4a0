"""What each rank does for `test_experts.py`: a mixture of the size of a small layer, and the memory that it takes.

T tokens of a rank, D model width, F expert width, E experts, K chosen ones.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xtuner_core.builtin.dispatchers.all_to_all import AllToAll
from xtuner_core.builtin.dispatchers.naive import Naive
from xtuner_core.builtin.expert_parallel.strategy import ExpertDispatch
from xtuner_core.contracts.dispatcher import ExpertGroup
from xtuner_core.nn import MoE
from xtuner_core.testing.build import bind
from xtuner_core.testing.tiny_run import tiny_host

T, D, F, E, K = 512, 64, 32, 4, 2
DTYPE = torch.float64
DISPATCHERS = {"all_to_all": AllToAll, "naive": Naive}


def memory(cases: list[list[Any]]) -> list[dict[str, int]]:
    """Bytes that a rank holds for a layer between its two passes, and at most in both, beside its parameters."""
    return [_measured(*case) for case in cases]


def _measured(dispatcher: str, routing: str, imbalance: float | None) -> dict[str, int]:
    size, place = dist.get_world_size(), dist.get_rank()
    torch.manual_seed(0)
    block = MoE(D, F, E // size, K, normalise=False).to(DTYPE)
    group = ExpertGroup(group=dist.group.WORLD, size=size, place=place, experts=E, imbalance=imbalance)
    block.dispatcher = ExpertDispatch(DISPATCHERS[dispatcher](None, group))
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
        parameter.grad = torch.zeros_like(parameter)
    bind(tiny_host(), block.modules(), DTYPE)
    x_TD = torch.randn(T, D, dtype=DTYPE, requires_grad=True)
    weights_TK = torch.rand(T, K, dtype=DTYPE, requires_grad=True)
    even_TK = torch.arange(T * K).view(T, K) % E
    experts_TK = even_TK if routing == "even" else torch.full_like(even_TK, E - 1)
    with LiveMemory() as memory:
        plan = block.dispatcher.prepare(weights_TK, experts_TK)
        y_TD = block.mix(x_TD, plan)
        kept = memory.live()
        y_TD.backward(torch.ones_like(y_TD))
    return {"kept": kept, "peak": memory.peak, "rounds": plan.rounds}


class LiveMemory(TorchDispatchMode):
    """Bytes of all tensors made inside and not yet gone, and the most after any operation."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def live(self) -> int:
        self._made = {key: (made, size) for key, (made, size) in self._made.items() if not made.expired()}
        return sum(size for _, size in self._made.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                storage = leaf.untyped_storage()
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, self.live())
        return result
