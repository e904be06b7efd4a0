"""AdamW against torch.optim.AdamW and against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xtuner_core_kernels.adamw import cpu, reference
from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.testing import random, relative_error

SETTINGS = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
IMPLEMENTATIONS = [reference.IMPLEMENTATION, cpu.IMPLEMENTATION]
SHAPES = [(7, 5), (3,), (1,), (0,)]


def parameters() -> list[Tensor]:
    return [random(*shape, seed=index) for index, shape in enumerate(SHAPES)]


def gradients(step: int) -> list[Tensor]:
    return [random(*shape, seed=10 * step + index) for index, shape in enumerate(SHAPES)]


def trained(implementation: Implementation, dtype: torch.dtype, grad_scale: float) -> list[Tensor]:
    params = [param.to(dtype) for param in parameters()]
    moments = [[torch.zeros_like(param) for param in params] for _ in range(2)]
    for step in (1, 2, 3):
        grads = [grad.to(dtype) for grad in gradients(step)]
        implementation.call(params, grads, *moments, step, **SETTINGS, grad_scale=grad_scale)
    return params


@pytest.mark.parametrize("grad_scale", [1.0, 0.25])
def test_reference_equals_torch(grad_scale: float) -> None:
    params = parameters()
    optimizer = torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in (1, 2, 3):
        for param, grad in zip(params, gradients(step), strict=True):
            param.grad = grad * grad_scale
        optimizer.step()
    for actual, expected in zip(trained(reference.IMPLEMENTATION, torch.float64, grad_scale), params, strict=True):
        assert relative_error(actual, expected) < 1e-14


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda i: i.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grad_scale", [1.0, 0.3, 0.0])
def test_agrees_with_float64(implementation: Implementation, dtype: torch.dtype, grad_scale: float) -> None:
    expected = trained(reference.IMPLEMENTATION, torch.float64, grad_scale)
    bound = implementation.tolerance if dtype == torch.float32 else 1e-14
    for actual, exact in zip(trained(implementation, dtype, grad_scale), expected, strict=True):
        assert relative_error(actual, exact) < bound


def test_reference_keeps_moments_in_their_own_dtype() -> None:
    params, grads = [random(9).float()], [random(9, seed=1).float()]
    moments = [[torch.zeros(9, dtype=torch.bfloat16)] for _ in range(2)]
    reference.adamw(params, grads, *moments, 1, **SETTINGS)
    assert torch.equal(moments[0][0], (grads[0] * (1 - 0.9)).bfloat16())
    assert relative_error(params[0], random(9) * 0.999 - 1e-2 * grads[0].sign().double()) < 1e-6


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda i: i.name)
def test_no_parameters_are_no_error(implementation: Implementation) -> None:
    implementation.call([], [], [], [], 1, **SETTINGS)


def test_cpu_refuses_moments_of_another_dtype() -> None:
    short = Use.of("adamw", "cpu", torch.float32, options={"state_dtype": "torch.bfloat16"})
    assert "torch.bfloat16" in str(cpu.IMPLEMENTATION.supports(short))
    same = Use.of("adamw", "cpu", torch.float32, options={"state_dtype": "torch.float32"})
    assert cpu.IMPLEMENTATION.supports(same) is None
