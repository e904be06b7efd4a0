"""SwiGLU against its formula and against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.swiglu import cpu, reference
from xtuner_core_kernels.testing import random, relative_error, worst_error


def test_reference_is_the_formula() -> None:
    gate, up = random(5, 6), random(5, 6, seed=1)
    expected = gate / (1 + torch.exp(-gate)) * up
    assert relative_error(reference.swiglu(torch.cat((gate, up), dim=-1)), expected) < 1e-15


def test_reference_with_a_limit_is_the_formula_of_gpt_oss() -> None:
    gate, up = random(5, 6) * 3, random(5, 6, seed=1) * 3
    low_gate, low_up = gate.minimum(torch.tensor(2.0)), up.maximum(torch.tensor(-2.0)).minimum(torch.tensor(2.0))
    expected = low_gate / (1 + torch.exp(-1.702 * low_gate)) * (low_up + 1)
    assert relative_error(reference.swiglu(torch.cat((gate, up), dim=-1), limit=2.0), expected) < 1e-15


@pytest.mark.parametrize("implementation", [reference.IMPLEMENTATION, cpu.IMPLEMENTATION], ids=lambda i: i.name)
@pytest.mark.parametrize("shape", [(0, 4), (1, 2), (64, 48), (3, 4, 6)])
def test_agrees_with_float64(implementation: Implementation, shape: tuple[int, ...]) -> None:
    inputs = [random(*shape) * 4]
    error = worst_error(implementation, reference.IMPLEMENTATION, inputs, lambda call, parts: call(*parts))
    assert error < implementation.tolerance


def test_cpu_gradient_is_the_derivative() -> None:
    assert torch.autograd.gradcheck(cpu.swiglu, (random(3, 8).requires_grad_(),))


def test_cpu_refuses_the_clamped_form() -> None:
    clamped = Use.of("swiglu", "cpu", torch.float32, options={"limit": 7.0})
    assert "limit" in str(cpu.IMPLEMENTATION.supports(clamped))
    assert cpu.IMPLEMENTATION.supports(Use.of("swiglu", "cpu", torch.float32, options={"limit": None})) is None
