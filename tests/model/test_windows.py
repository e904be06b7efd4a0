"""Attention through a window sees its last keys only, in a pack and with a cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from xtuner_core_kernels.attention import cpu, reference
from xtuner_core_kernels.operator import Implementation

from xtuner_core.contracts.batch import Document, PackedBatch, pack
from xtuner_core.contracts.operator import OperatorTable
from xtuner_core.engine.cache import DenseCache
from xtuner_core.nn import AttentionCore

LENGTHS, WINDOW = (9, 2, 6), 3


def core(implementation: Implementation = reference.IMPLEMENTATION, *, sinks: bool = False) -> AttentionCore:
    made = AttentionCore(4, 2, 8, layer=0, value_dim=6, window=WINDOW, sinks=sinks).double()
    if made.sinks is not None:
        torch.nn.init.normal_(made.sinks, generator=torch.Generator().manual_seed(1))
    (use,) = made.uses(device="cpu", dtype=torch.float64).values()
    assert implementation.supports(use) is None
    made.bind(OperatorTable({use: implementation}), device="cpu", dtype=torch.float64)
    return made


def inputs() -> list[Tensor]:
    random, tokens = torch.Generator().manual_seed(0), sum(LENGTHS)
    shapes = ((4, 8), (2, 8), (2, 6))
    return [torch.randn(tokens, *shape, dtype=torch.float64, generator=random) for shape in shapes]


@pytest.fixture
def batch() -> PackedBatch:
    return pack([Document.of(torch.zeros(length, dtype=torch.int64)) for length in LENGTHS])


def by_token(made: AttentionCore) -> Tensor:
    """Token by token, head by head."""
    q_THC, k_TGC, v_TGV = inputs()
    starts = [start for start, length in zip((0, 9, 11), LENGTHS, strict=True) for _ in range(length)]
    rows = []
    for t, start in enumerate(starts):
        seen = slice(max(start, t + 1 - WINDOW), t + 1)
        for h in range(4):
            scores = k_TGC[seen, h // 2] @ q_THC[t, h] * 8**-0.5
            sink = scores.new_empty(0) if made.sinks is None else made.sinks[h : h + 1]
            weights = torch.cat([scores, sink]).softmax(0)[: len(scores)]
            rows.append(weights @ v_TGV[seen, h // 2])
    return torch.stack(rows).view(-1, 4, 6)


@pytest.mark.parametrize("sinks", [False, True])
def test_a_token_sees_itself_and_the_keys_just_before_it_in_its_document(batch, sinks):
    made = core(sinks=sinks)
    torch.testing.assert_close(made(*inputs(), batch), by_token(made), rtol=0, atol=1e-12)


def test_the_implementation_for_cpu_does_too(batch):
    made = core(cpu.IMPLEMENTATION)
    torch.testing.assert_close(made(*inputs(), batch), by_token(made), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sinks", [False, True])
def test_so_it_is_with_a_cache(batch, sinks):
    made = core(sinks=sinks)
    cache, pieces = DenseCache(1, "cpu"), []
    for start, stop in ((0, 5), (5, 6), (6, 9)):
        cache.begin([stop - start])
        pieces.append(made(*(each[start:stop] for each in inputs()), batch, cache))
    torch.testing.assert_close(torch.cat(pieces), by_token(made)[:9], rtol=0, atol=1e-12)


def test_sinks_are_a_parameter_of_the_core():
    (name,) = dict(core(sinks=True).named_parameters())
    assert (name, AttentionCore.role) == ("sinks", "attn.core")
