"""Parameters of every kind that a model has, with rules on some of them, and optimizers over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from xtuner_core_kernels.adamw.reference import IMPLEMENTATION

from xtuner_core.contracts.operator import OperatorTable
from xtuner_core.contracts.optimizer import OptimizedParameter
from xtuner_core.contracts.weights import Span

KINDS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "embed": ("embed", (7, 5), {"learning_rate_factor": 0.25, "group": "embed"}),
    "qkv": ("attn.qkv", (12, 8), {"matrices": tuple((Span(*rows), Span(0, 8)) for rows in ((0, 6), (6, 9), (9, 12)))}),
    "qkv_bias": ("attn.qkv", (12,), {}),
    "out": ("attn.out", (8, 6), {"weight_decay": 0.02}),
    "q_norm": ("norm", (3,), {"weight_decay": 0.3}),
    "norms": ("norm", (2, 4), {}),
    "gate_up": ("moe.experts", (3, 10, 4), {"matrices": ((Span(0, 10, 2), Span(0, 4)), (Span(1, 10, 2), Span(0, 4)))}),
    "down": ("moe.experts", (3, 4, 5), {"learning_rate_factor": 3.0, "weight_decay": 0.0, "group": "moe.experts.0"}),
    "router": ("moe.router", (3, 8), {}),
    "square": ("mlp.up", (6, 6), {}),
    "head": ("head", (9, 5), {}),
}
"""Name to role, shape, and what the rules and the weight map say."""


def values(dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """Random tensors of the shapes of `KINDS`."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for _, shape, _ in KINDS.values()]


def described(tensors: Sequence[Tensor], **changes: Any) -> list[OptimizedParameter]:
    """The tensors as an optimizer sees them."""
    kinds = zip(KINDS.items(), tensors, strict=True)
    made = [
        OptimizedParameter(name=name, role=role, layer=0, tensor=tensor, **more)
        for (name, (role, _, more)), tensor in kinds
    ]
    return [replace(each, **changes) for each in made]


def bound(optimizer: Any) -> Any:
    """The optimizer with the operator's reference."""
    uses = optimizer.uses(device="cpu", dtype=torch.float64).values()
    optimizer.bind(OperatorTable(dict.fromkeys(uses, IMPLEMENTATION)), device="cpu", dtype=torch.float64)
    return optimizer


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def zoo() -> SimpleNamespace:
    """Everything above, for tests to reach."""
    return SimpleNamespace(KINDS=KINDS, values=values, described=described, bound=bound)
