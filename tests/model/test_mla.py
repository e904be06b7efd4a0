"""Multi-head latent attention equals the formulas of the paper, written here head by head and token by token.

T tokens, D model width, H heads, N channels of a head's content, P rotated channels, V channels of a value.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from xtuner_core_kernels.attention import reference as attention
from xtuner_core_kernels.rms_norm import reference as rms_norm
from xtuner_core_kernels.rotary import reference as rotary

from xtuner_core.contracts.batch import Document, PackedBatch, pack
from xtuner_core.contracts.operator import OperatorTable
from xtuner_core.engine.cache import DenseCache
from xtuner_core.nn import LatentAttention, LatentSizes, OperatorModule, RotaryConfig, RotaryTable

DIM, EPS, LENGTHS = 10, 1e-5, (7, 1, 4)
OPERATORS = {"attention": attention, "rms_norm": rms_norm, "rotary": rotary}
CASES = {
    "compressed queries": ({"query_latent": 6}, {}),
    "queries as they are": ({}, {}),
    "a scale, biases": ({"query_latent": 6}, {"scale": 0.7, "bias": True, "out_bias": True}),
    "a window": ({}, {"window": 3}),
    "interleaved": ({"query_latent": 6}, {"interleaved": True}),
}


def make(sizes: dict, options: dict) -> tuple[LatentAttention, LatentSizes]:
    made = LatentSizes(**{"heads": 3, "content_dim": 4, "rotary_dim": 2 * 2, "value_dim": 5, "latent": 7} | sizes)
    module = LatentAttention(DIM, made, layer=0, norm_eps=EPS, **options).double()
    random = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=random)
    users = [each for each in module.modules() if isinstance(each, OperatorModule)]
    uses = [use for user in users for use in user.uses(device="cpu", dtype=torch.float64).values()]
    table = OperatorTable({use: OPERATORS[use.operator].IMPLEMENTATION for use in uses})
    for user in users:
        user.bind(table, device="cpu", dtype=torch.float64)
    return module, made


@pytest.fixture
def batch() -> PackedBatch:
    return pack([Document.of(torch.zeros(length, dtype=torch.int64)) for length in LENGTHS])


def hidden(tokens: int) -> Tensor:
    x_TD = torch.randn(tokens, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x_TD.requires_grad_()


def angles(module: LatentAttention, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    table = RotaryTable(RotaryConfig(dim=module.sizes.rotary_dim, theta=50.0), interleaved=module.interleaved)
    return table(batch.positions, torch.float64)


def turned(x_P: Tensor, position: int, interleaved: bool) -> Tensor:
    """Rotated as complex numbers."""
    half = len(x_P) // 2
    pairs = x_P.view(half, 2).T if interleaved else x_P.view(2, half)
    speed = 50.0 ** (-2 * torch.arange(half, dtype=torch.float64) / len(x_P))
    turn = torch.complex(pairs[0], pairs[1]) * torch.polar(torch.ones_like(speed), position * speed)
    parts = torch.stack((turn.real, turn.imag))
    return (parts.T if interleaved else parts).flatten()


def normalised(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def published(module: LatentAttention, sizes: LatentSizes, x_TD: Tensor, window: int | None) -> Tensor:
    """Equations 9 to 19 of arXiv 2405.04434 for one document."""
    n, p, v, interleaved = sizes.content_dim, sizes.rotary_dim, sizes.value_dim, module.interleaved
    down = x_TD @ module.down.weight.T + (0 if module.down.bias is None else module.down.bias)
    query, latent, shared = down.split(module.widths, dim=-1)
    if sizes.query_latent is not None:
        query = normalised(query, module.query_norm.weight) @ module.query_up.weight.T
    both = normalised(latent, module.latent_norm.weight) @ module.up.weight.T
    keys = [turned(row, place, interleaved) for place, row in enumerate(shared)]
    scale = module.core.scale
    outputs = []
    for t in range(len(x_TD)):
        seen = range(0 if window is None else max(0, t + 1 - window), t + 1)
        for h in range(sizes.heads):
            q = query[t, h * (n + p) : (h + 1) * (n + p)]
            rows = [both[j, h * (n + v) : (h + 1) * (n + v)] for j in seen]
            q_turned = turned(q[n:], t, interleaved)
            scores = [q[:n] @ row[:n] + q_turned @ keys[j] for j, row in zip(seen, rows, strict=True)]
            weights = (torch.stack(scores) * scale).softmax(0)
            outputs.append(weights @ torch.stack([row[n:] for row in rows]))
    mixed = torch.stack(outputs).view(len(x_TD), -1)
    return mixed @ module.out.weight.T + (0 if module.out.bias is None else module.out.bias)


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_the_paper(batch, case):
    module, sizes = make(*CASES[case])
    x_TD = hidden(sum(LENGTHS))
    found = module(x_TD, *angles(module, batch), batch)
    window = CASES[case][1].get("window")
    expected = torch.cat([published(module, sizes, each, window) for each in x_TD.split(LENGTHS)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    asked = (x_TD, *module.parameters())
    ours, theirs = (torch.autograd.grad((each * weights).sum(), asked) for each in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_scale_is_that_of_the_paper_unless_told():
    module, sizes = make({}, {})
    assert module.core.scale == (sizes.content_dim + sizes.rotary_dim) ** -0.5


@pytest.mark.parametrize("case", CASES)
def test_with_a_cache_a_document_goes_on_as_if_it_were_whole(case):
    module, _ = make(*CASES[case])
    whole = pack([Document.of(torch.zeros(9, dtype=torch.int64))])
    x_TD, (cos_TP, sin_TP) = hidden(9), angles(module, whole)
    cache, pieces = DenseCache(1, "cpu"), []
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        cache.begin([stop - start])
        here = slice(start, stop)
        pieces.append(module(x_TD[here], cos_TP[here], sin_TP[here], whole, cache))
    expected = module(x_TD, cos_TP, sin_TP, whole)
    torch.testing.assert_close(torch.cat(pieces), expected, rtol=0, atol=1e-12)
