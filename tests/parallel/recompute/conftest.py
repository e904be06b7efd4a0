"""Models with the strategy applied, and what their forward pass leaves in memory."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xtuner_core.builtin.cpu.device import CpuDevice
from xtuner_core.builtin.recompute.config import RecomputeConfig
from xtuner_core.builtin.recompute.strategy import Recompute
from xtuner_core.contracts.parallelism import RankContext
from xtuner_core.contracts.precision import PrecisionPolicy
from xtuner_core.engine.ranks.groups import alone
from xtuner_core.engine.ranks.layout import RankLayout
from xtuner_core.host import Host
from xtuner_core.testing import tiny_host
from xtuner_core.testing.build import build_model

FP64 = PrecisionPolicy(parameter=torch.float64, compute=torch.float64, reduction=torch.float64, state=torch.float64)
SETTINGS: dict[str, dict[str, Any]] = {
    "norms and activations": {"keep": "products"},
    "attention": {"role": "attn"},
    "attention's norms and rotation": {"role": "attn", "keep": "products"},
    "feed-forward": {"role": "moe"},
    "experts": {"role": "moe.experts"},
    "whole layers": {},
    "one whole layer": {"layers": "1"},
}


@pytest.fixture(scope="session")
def host() -> Host:
    return tiny_host(["qwen3_moe"])


@pytest.fixture(scope="session")
def make_model(host) -> Callable[..., nn.Module]:
    """From the name of a model to one with weights that hide no mistake."""

    def make(name: str, dtype: torch.dtype = torch.float64, **values: Any) -> nn.Module:
        return build_model(host, name, values, dtype, spread=0.2)

    return make


def apply(model: nn.Module, *settings: dict[str, Any], device: Any = None) -> nn.Module:
    """A copy of a model with the strategy applied, once for each of the settings."""
    model, ranks = copy.deepcopy(model), alone()
    device = CpuDevice(None) if device is None else device
    context = RankContext(
        ranks=ranks, layout=RankLayout(ranks.views, 0), device=device, policy=FP64, followers=frozenset()
    )
    for values in settings:
        model = Recompute(RecomputeConfig(**values)).apply(model, context)
    return model


@pytest.fixture(scope="session")
def recomputed() -> Callable[..., nn.Module]:
    return apply


@pytest.fixture(scope="session")
def settings() -> dict[str, dict[str, Any]]:
    return SETTINGS


class Kept(TorchDispatchMode):
    """Counts the bytes of tensors that were made under it and still live."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        # A view of what lived before, a weight transposed, is not made here.
        given = {
            each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)
        }
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                self._made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return output

    def bytes(self) -> int:
        return sum(size for storage, size in self._made.values() if not storage.expired())


@pytest.fixture
def bytes_kept() -> Callable[[Callable[[], Any]], int]:
    """Bytes that a call leaves alive as long as what it returns does; what lived before it is not counted."""

    def count(call: Callable[[], Any]) -> int:
        with Kept() as kept:
            result = call()
        gc.collect()
        found = kept.bytes()
        del result
        return found

    return count


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
