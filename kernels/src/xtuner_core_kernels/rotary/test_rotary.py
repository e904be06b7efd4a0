"""Rotary embedding against complex multiplication, transformers' formula, and the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xtuner_core_kernels.native.checks import bits_differ
from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.rotary import cpu, native, reference
from xtuner_core_kernels.testing import random, relative_error, worst_error

EPS = 1e-6
IMPLEMENTATIONS = [reference.IMPLEMENTATION, cpu.IMPLEMENTATION, native.IMPLEMENTATION]


def angles(tokens: int, rotating: int, interleaved: bool) -> Tensor:
    angle_TP = random(tokens, rotating // 2, seed=7) * 3
    return angle_TP.repeat_interleave(2, dim=1) if interleaved else torch.cat((angle_TP, angle_TP), dim=1)


@pytest.mark.parametrize("interleaved", [False, True])
def test_reference_is_a_complex_multiplication(interleaved: bool) -> None:
    x_THC, angle_TP = random(5, 2, 8), angles(5, 8, interleaved)
    pairs = x_THC.unflatten(-1, (4, 2)) if interleaved else x_THC.unflatten(-1, (2, 4)).transpose(-1, -2)
    unit = torch.polar(torch.ones(5, 1, 4).double(), angle_TP[:, None, ::2] if interleaved else angle_TP[:, None, :4])
    turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * unit)
    expected = turned.flatten(-2) if interleaved else turned.transpose(-1, -2).flatten(-2)
    actual = reference.rotary(x_THC, angle_TP.cos(), angle_TP.sin(), interleaved=interleaved)
    assert relative_error(actual, expected) < 1e-15


def test_reference_keeps_the_scores_of_equal_distances() -> None:
    x_THC = random(1, 1, 16).expand(6, 1, 16)
    angle_TP = torch.outer(torch.arange(6).double(), random(8, seed=3)).repeat(1, 2)
    turned = reference.rotary(x_THC, angle_TP.cos(), angle_TP.sin())[:, 0]
    scores = turned @ turned.T
    assert torch.allclose(scores.diagonal(1), scores[0, 1].expand(5))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda i: i.name)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotating", [8, 16])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("tokens", [0, 1, 33])
def test_agrees_with_float64(
    implementation: Implementation, interleaved: bool, rotating: int, norm: bool, tokens: int
) -> None:
    angle_TP = angles(tokens, rotating, interleaved)
    inputs = [random(tokens, 3, 16), random(16, seed=1)] if norm else [random(tokens, 3, 16)]

    def use(call, parts):  # type: ignore[no-untyped-def]
        cos_TP, sin_TP = angle_TP.cos().to(parts[0].dtype), angle_TP.sin().to(parts[0].dtype)
        return call(parts[0], cos_TP, sin_TP, parts[1] if norm else None, EPS, interleaved)

    assert worst_error(implementation, reference.IMPLEMENTATION, inputs, use) < implementation.tolerance


def test_cpu_gradient_is_the_derivative() -> None:
    angle_TP = angles(3, 4, interleaved=False)
    inputs = (random(3, 2, 6).requires_grad_(), random(6, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda x, w: cpu.rotary(x, angle_TP.cos(), angle_TP.sin(), w, EPS), inputs)


@pytest.mark.parametrize("implementation", [cpu.IMPLEMENTATION, native.IMPLEMENTATION], ids=lambda i: i.name)
def test_takes_a_slice_of_a_fused_projection(implementation: Implementation) -> None:
    angle_TP, fused_TD = angles(5, 8, interleaved=False), random(5, 40)

    def use(call, parts):  # type: ignore[no-untyped-def]
        heads_THC = parts[0][:, 8:24].unflatten(1, (2, 8))
        return call(heads_THC, angle_TP.cos().to(parts[0].dtype), angle_TP.sin().to(parts[0].dtype))

    error = worst_error(implementation, reference.IMPLEMENTATION, [fused_TD], use)
    assert error < implementation.tolerance


@pytest.mark.parametrize("norm", [False, True])
def test_native_gives_the_same_bits_with_any_threads(norm: bool) -> None:
    angle_TP = angles(2100, 8, interleaved=False).float()
    inputs = [random(2100, 3, 16), random(16, seed=1)][: 1 + norm]
    assert bits_differ(lambda *parts: native.rotary(parts[0], angle_TP.cos(), angle_TP.sin(), *parts[1:]), inputs) == []


def test_cpu_refuses_other_devices() -> None:
    assert "not on npu" in str(cpu.IMPLEMENTATION.supports(Use.of("rotary", "npu", torch.float32)))
