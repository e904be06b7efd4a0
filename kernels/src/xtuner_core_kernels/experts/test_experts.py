"""Grouped experts against a loop over tokens and against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from xtuner_core_kernels.experts import cpu, native, reference
from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.testing import random, relative_error, worst_error

EXPERTS = 5
ROUTINGS = {
    "none": torch.zeros(0, 2, dtype=torch.int64),
    "one token": torch.tensor([[3, 1]]),
    "one expert takes all": torch.full((9, 1), 2),
    "the same expert twice": torch.tensor([[4, 4], [0, 4]]),
    "an expert without rows": torch.tensor([[0, 1], [1, 4], [4, 0], [3, 1]]),
    "many": torch.randint(0, EXPERTS, (70, 3), generator=torch.Generator().manual_seed(5)),
}


def inputs(tokens: int) -> list[Tensor]:
    return [random(tokens, 6), random(EXPERTS, 8, 6, seed=1), random(EXPERTS, 6, 4, seed=2)]


def test_reference_is_the_sum_over_a_tokens_experts() -> None:
    routing_TK, weights_TK = ROUTINGS["many"], random(70, 3, seed=4)
    x_TD, gate_up_EFD, down_EDF = inputs(70)
    for token in range(70):
        expected = torch.zeros(6).double()
        for expert, weight in zip(routing_TK[token].tolist(), weights_TK[token], strict=True):
            gate, up = (gate_up_EFD[expert] @ x_TD[token]).chunk(2)
            expected += weight * (down_EDF[expert] @ (functional.silu(gate) * up))
        actual = reference.experts(x_TD, gate_up_EFD, down_EDF, weights_TK, routing_TK)[token]
        assert relative_error(actual, expected) < 1e-14


@pytest.mark.parametrize(
    "implementation", [reference.IMPLEMENTATION, cpu.IMPLEMENTATION, native.IMPLEMENTATION], ids=lambda i: i.name
)
@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("weighted", [True, False])
def test_agrees_with_float64(implementation: Implementation, routing: str, weighted: bool) -> None:
    experts_TK = ROUTINGS[routing]
    parts = inputs(len(experts_TK)) + ([random(*experts_TK.shape, seed=3)] if weighted else [])

    def use(call, parts):  # type: ignore[no-untyped-def]
        return call(*parts[:3], parts[3] if weighted else None, experts_TK)

    assert worst_error(implementation, reference.IMPLEMENTATION, parts, use) < implementation.tolerance


def test_cpu_gradient_is_the_derivative() -> None:
    experts_TK = ROUTINGS["an expert without rows"]
    parts = tuple(part.requires_grad_() for part in [*inputs(4), random(4, 2, seed=3)])
    assert torch.autograd.gradcheck(lambda *p: cpu.experts(*p, experts_TK), parts)


def test_cpu_router_weights_keep_their_own_dtype() -> None:
    weights_TK = random(70, 3, seed=4).requires_grad_()
    output_TD = cpu.experts(*(part.float() for part in inputs(70)), weights_TK, ROUTINGS["many"])
    output_TD.sum().backward()
    assert output_TD.dtype == torch.float32
    assert weights_TK.grad.dtype == torch.float64


def test_cpu_forwards_of_two_inputs_do_not_share_state() -> None:
    parts = [part.float().requires_grad_() for part in inputs(70)]
    first, second = (cpu.experts(x_TD, *parts[1:], None, ROUTINGS["many"]) for x_TD in (parts[0], parts[0] * 2))
    (first.sum() + second.sum()).backward()
    expected = torch.autograd.grad(cpu.experts(*parts, None, ROUTINGS["many"]).sum(), parts[1])[0]
    expected += torch.autograd.grad(cpu.experts(parts[0] * 2, *parts[1:], None, ROUTINGS["many"]).sum(), parts[1])[0]
    assert relative_error(parts[1].grad, expected) < 1e-6


def test_cpu_gives_the_same_bits_twice() -> None:
    def gradients() -> list[Tensor]:
        parts = [part.float().requires_grad_() for part in [*inputs(70), random(70, 3, seed=3)]]
        cpu.experts(*parts, ROUTINGS["many"]).square().sum().backward()
        return [part.grad for part in parts if part.grad is not None]

    assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))


def test_cpu_refuses_other_devices_and_short_floats() -> None:
    assert "not on npu" in str(cpu.IMPLEMENTATION.supports(Use.of("experts", "npu", torch.float32)))
    assert "bfloat16" in str(cpu.IMPLEMENTATION.supports(Use.of("experts", "cpu", torch.bfloat16)))
