"""Attention against PyTorch's scaled_dot_product_attention and against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from xtuner_core_kernels.attention import cpu, cpu_runs, native, reference
from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.testing import random, relative_error, worst_error


def boundaries(lengths: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


@pytest.mark.parametrize("causal", [True, False])
def test_reference_equals_torch_document_by_document(causal: bool) -> None:
    lengths = (5, 1, 9)
    q_THC, k_TGC, v_TGV = random(15, 4, 8), random(15, 2, 8, seed=1), random(15, 2, 6, seed=2)
    actual = reference.attention(q_THC, k_TGC, v_TGV, boundaries(lengths), lengths, 0.3, causal)
    for start, length in ((0, 5), (5, 1), (6, 9)):
        q, k, v = (part[start : start + length].transpose(0, 1) for part in (q_THC, k_TGC, v_TGV))
        expected = functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=0.3, enable_gqa=True)
        assert relative_error(actual[start : start + length], expected.transpose(0, 1)) < 1e-14


def test_reference_window_counts_the_token_itself() -> None:
    q_THC, v_THV = torch.zeros(5, 1, 2).double(), torch.eye(5).double().unsqueeze(1)
    weights = reference.attention(q_THC, q_THC, v_THV, boundaries((5,)), (5,), 1.0, window=2)[:, 0]
    assert torch.equal(weights > 0, torch.ones(5, 5).tril().triu(-1) > 0)


def test_reference_sink_takes_its_share_of_the_denominator() -> None:
    q_THC, v_THV = torch.zeros(1, 2, 4).double(), torch.ones(1, 2, 3).double()
    sinks_H = torch.tensor([0.0, 1.0]).double()
    output = reference.attention(q_THC, q_THC, v_THV, boundaries((1,)), (1,), 1.0, sinks_H=sinks_H)
    assert torch.allclose(output[0, :, 0], 1 / (1 + sinks_H.exp()))


@pytest.mark.parametrize(
    "implementation", [reference.IMPLEMENTATION, cpu.IMPLEMENTATION, native.IMPLEMENTATION], ids=lambda i: i.name
)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 17])
@pytest.mark.parametrize("heads", [(4, 2), (3, 3), (4, 1)])
@pytest.mark.parametrize("lengths", [(), (1,), (20, 20, 0, 70, 1), (129,)])
def test_agrees_with_float64(
    implementation: Implementation,
    causal: bool,
    window: int | None,
    heads: tuple[int, int],
    lengths: tuple[int, ...],
) -> None:
    tokens = sum(lengths)
    inputs = [random(tokens, heads[0], 16), random(tokens, heads[1], 16, seed=1), random(tokens, heads[1], 8, seed=2)]

    def use(call, parts):  # type: ignore[no-untyped-def]
        return call(*parts, boundaries(lengths), lengths, 0.25, causal, window)

    assert worst_error(implementation, reference.IMPLEMENTATION, inputs, use) < implementation.tolerance


def test_cpu_gradient_is_the_derivative() -> None:
    lengths = (3, 2)
    inputs = tuple(random(5, heads, 4, seed=heads).requires_grad_() for heads in (4, 2, 2))
    assert torch.autograd.gradcheck(lambda *parts: cpu.attention(*parts, boundaries(lengths), lengths, 0.5), inputs)


def test_cpu_survives_scores_far_from_zero() -> None:
    # Scores of several hundred: rounding them costs either implementation some 1e-4 in the gradients of queries and
    # keys. (With the maximum and the sum combined into one logarithm it would cost a thousand times that.)
    inputs = [
        (random(40, 2, 8, seed=seed) * factor).float().double() for seed, factor in ((0, 222.2), (1, 1.1), (2, 1.1))
    ]

    def use(call, parts):  # type: ignore[no-untyped-def]
        return call(*parts, boundaries((40,)), (40,), 1.0)

    inherent = worst_error(reference.IMPLEMENTATION, reference.IMPLEMENTATION, inputs, use)
    assert worst_error(cpu.IMPLEMENTATION, reference.IMPLEMENTATION, inputs, use) < 10 * inherent
    exact = worst_error(cpu.IMPLEMENTATION, reference.IMPLEMENTATION, inputs, use, torch.float64)
    assert exact < 1e-11


def test_cpu_runs_of_equal_documents_are_split_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = (20, 20, 20, 20, 20)
    inputs = [random(100, 2, 8), random(100, 2, 8, seed=1), random(100, 2, 8, seed=2)]
    monkeypatch.setattr(cpu_runs, "RUN_SCORES", 2 * 2 * 20 * 20)

    def use(call, parts):  # type: ignore[no-untyped-def]
        return call(*parts, boundaries(lengths), lengths, 0.3)

    error = worst_error(cpu.IMPLEMENTATION, reference.IMPLEMENTATION, inputs, use)
    assert error < cpu.IMPLEMENTATION.tolerance


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 17])
def test_cpu_computes_again_what_it_may_not_keep(
    monkeypatch: pytest.MonkeyPatch, causal: bool, window: int | None
) -> None:
    lengths = (20, 20, 70, 129)
    inputs = [random(239, 4, 8), random(239, 2, 8, seed=1), random(239, 2, 6, seed=2)]
    monkeypatch.setattr(cpu, "KEEP_BYTES", 0)

    def use(call, parts):  # type: ignore[no-untyped-def]
        return call(*parts, boundaries(lengths), lengths, 0.3, causal, window)

    error = worst_error(cpu.IMPLEMENTATION, reference.IMPLEMENTATION, inputs, use)
    assert error < cpu.IMPLEMENTATION.tolerance


def test_cpu_keeps_its_exponentials_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [random(70, 2, 8).float().requires_grad_() for _ in range(3)]
    # One block of 64 queries that see 64 keys, one of 6 that see 70; two heads.
    scores = 2 * (64 * 64 + 6 * 70)

    def kept_bytes(budget: int) -> int:
        monkeypatch.setattr(cpu, "KEEP_BYTES", budget)
        saved: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
            cpu.attention(*inputs, boundaries((70,)), (70,), 0.3)
        return sum(x.numel() * x.itemsize for x in saved)

    statistics = 2 * 70 * 4
    assert kept_bytes(4 * scores) - kept_bytes(4 * scores - 1) == 4 * scores - statistics


def test_cpu_computes_bfloat16_in_float32() -> None:
    inputs = [random(30, 2, 8).bfloat16(), random(30, 2, 8, seed=1).bfloat16(), random(30, 2, 8, seed=2).bfloat16()]
    actual = cpu.attention(*inputs, boundaries((30,)), (30,), 0.3)
    expected = cpu.attention(*(part.float() for part in inputs), boundaries((30,)), (30,), 0.3)
    assert torch.equal(actual, expected.bfloat16())


def test_cpu_gives_the_same_bits_twice() -> None:
    inputs = [random(300, 4, 16).float(), random(300, 2, 16, seed=1).float(), random(300, 2, 16, seed=2).float()]
    first, second = (cpu.attention(*inputs, boundaries((150, 150)), (150, 150), 0.3) for _ in range(2))
    assert torch.equal(first, second)


def test_cpu_refuses_sinks_and_other_devices() -> None:
    sinks = Use.of("attention", "cpu", torch.float32, options={"sinks": True})
    assert "sinks" in str(cpu.IMPLEMENTATION.supports(sinks))
    assert "not on cuda" in str(cpu.IMPLEMENTATION.supports(Use.of("attention", "cuda", torch.float32)))
    window = Use.of("attention", "cpu", torch.bfloat16, options={"window": 128, "sinks": False})
    assert cpu.IMPLEMENTATION.supports(window) is None
