"""Fixtures: models bound to the operators of `kernels`, with weights that are a function of seed and name."""

from __future__ import annotations

import importlib
import importlib.util
import zlib
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import nn
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig
from xtuner_core_qwen3_moe.model import build

from xtuner_core.contracts.operator import Implementation, OperatorTable, OperatorUser, Use


def _candidates(operator: str, kinds: Sequence[str]) -> list[Implementation]:
    found = []
    for kind in kinds:
        name = f"xtuner_core_kernels.{operator}.{kind}"
        if importlib.util.find_spec(name) is not None:
            found.append(importlib.import_module(name).IMPLEMENTATION)
    return found


def _choose(use: Use, kinds: Sequence[str]) -> Implementation:
    serving = [item for item in _candidates(use.operator, kinds) if item.supports(use) is None]
    return max(serving, key=lambda item: item.preference)


def bind(model: nn.Module, dtype: torch.dtype, kinds: Sequence[str]) -> None:
    """Bind every use of `model` on the CPU to the supported implementation of highest preference."""
    users = [module for module in model.modules() if isinstance(module, OperatorUser)]
    uses = {use for user in users for use in user.uses(device="cpu", dtype=dtype).values()}
    table = OperatorTable({use: _choose(use, kinds) for use in uses})
    for user in users:
        user.bind(table, device="cpu", dtype=dtype)


@torch.no_grad()
def initialise(model: nn.Module, seed: int, spread: float | None = None) -> None:
    """Fill every region by the weight map, keyed by seed and checkpoint name.

    :param spread: standard deviation around the initial constant, or of the normal; None keeps the map's own.
    """
    parameters = dict(model.named_parameters())
    for entry in model.weight_map().entries:
        region = entry.region(parameters[entry.parameter])
        generator = torch.Generator().manual_seed(seed * 2**32 + zlib.crc32(entry.hf_name.encode()))
        noise = torch.randn(region.shape, generator=generator, dtype=torch.float64)
        constant = entry.init.value if entry.init.kind == "constant" else 0.0
        std = entry.init.value if entry.init.kind == "normal" else 0.0
        region.copy_(constant + noise * (std if spread is None else spread))


def make(
    config: Qwen3MoeConfig,
    dtype: torch.dtype = torch.float64,
    *,
    seed: int = 0,
    spread: float | None = None,
    kinds: Sequence[str] = ("reference", "cpu"),
) -> nn.Module:
    with torch.device("meta"):
        model = build(config)
    model.to(dtype).to_empty(device="cpu")
    initialise(model, seed, spread)
    bind(model, dtype, kinds)
    return model


@pytest.fixture(scope="session")
def make_model() -> Callable[..., nn.Module]:
    """From a configuration to a bound model with weights, built on meta as the engine does."""
    return make


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These models are too small for threads to do anything but wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
