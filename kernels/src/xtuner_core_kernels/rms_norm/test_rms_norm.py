"""RMS normalisation against PyTorch's own and against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from xtuner_core_kernels.native.checks import bits_differ
from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.rms_norm import cpu, native, reference
from xtuner_core_kernels.testing import random, relative_error, worst_error

EPS = 1e-6
IMPLEMENTATIONS = [reference.IMPLEMENTATION, cpu.IMPLEMENTATION, native.IMPLEMENTATION]


def test_reference_equals_torch() -> None:
    x_TD, weight_D = random(7, 33), random(33, seed=1)
    expected = functional.rms_norm(x_TD, (33,), weight_D, EPS)
    assert relative_error(reference.rms_norm(x_TD, weight_D, EPS), expected) < 1e-15


def test_reference_rounds_before_the_weight_in_bfloat16() -> None:
    x_TD, weight_D = random(7, 33).bfloat16(), random(33, seed=1).bfloat16()
    exact = x_TD.float() * torch.rsqrt((x_TD.float() ** 2).mean(-1, keepdim=True) + EPS)
    assert torch.equal(reference.rms_norm(x_TD, weight_D, EPS), weight_D * exact.bfloat16())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda i: i.name)
@pytest.mark.parametrize("shape", [(0, 8), (1, 8), (64, 192), (5, 3, 16), (2100, 21)])
def test_agrees_with_float64(implementation: Implementation, shape: tuple[int, ...]) -> None:
    inputs = [random(*shape) * 3, random(shape[-1], seed=1)]
    error = worst_error(implementation, reference.IMPLEMENTATION, inputs, lambda call, parts: call(*parts, EPS))
    assert error < implementation.tolerance


def test_cpu_gradient_is_the_derivative() -> None:
    inputs = (random(3, 5).requires_grad_(), random(5, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda x, weight: cpu.rms_norm(x, weight, EPS), inputs)


def test_cpu_takes_a_view_and_a_gradient_that_are_not_contiguous() -> None:
    inputs = [random(16, 6), random(6, seed=1)]
    error = worst_error(
        cpu.IMPLEMENTATION,
        reference.IMPLEMENTATION,
        [inputs[0].T.contiguous(), inputs[0].new_ones(16)],
        lambda call, parts: call(parts[0].T.contiguous().T, parts[1], EPS).T,
    )
    assert error < cpu.IMPLEMENTATION.tolerance


def test_cpu_refuses_other_devices_and_short_floats() -> None:
    assert "not on cuda" in str(cpu.IMPLEMENTATION.supports(Use.of("rms_norm", "cuda", torch.float32)))
    assert "bfloat16" in str(cpu.IMPLEMENTATION.supports(Use.of("rms_norm", "cpu", torch.bfloat16)))
    assert cpu.IMPLEMENTATION.supports(Use.of("rms_norm", "cpu", torch.float32)) is None


def test_native_gives_the_same_bits_with_any_threads() -> None:
    assert bits_differ(lambda x, weight: native.rms_norm(x, weight, EPS), [random(2100, 21), random(21, seed=1)]) == []


def test_native_hands_on_what_is_not_finite() -> None:
    x_TD = random(3, 9).float()
    x_TD[1, 4] = float("nan")
    assert torch.equal(native.rms_norm(x_TD, torch.ones(9), EPS).isnan().all(1), torch.tensor([False, True, False]))
