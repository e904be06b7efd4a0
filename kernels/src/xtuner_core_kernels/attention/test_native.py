"""Attention in C: lengths and widths beside those of tiles, parts of keys, bits, scores far from zero, NaN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xtuner_core_kernels.attention import native, reference
from xtuner_core_kernels.native.checks import bits_differ
from xtuner_core_kernels.operator import Use
from xtuner_core_kernels.testing import random, worst_error

TOLERANCE = native.IMPLEMENTATION.tolerance


def inputs(tokens: int, heads: int, groups: int, channels: int, values: int) -> list[Tensor]:
    shapes = ((heads, channels), (groups, channels), (groups, values))
    return [random(tokens, *shape, seed=seed) for seed, shape in enumerate(shapes)]


@pytest.mark.parametrize("window", [None, 1, 50, 300])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("lengths", "sizes"), [((3, 330, 0, 95, 1), (2, 1, 5, 33)), ((97, 600), (2, 2, 40, 8))], ids=("gqa", "mha")
)
def test_agrees_with_float64_at_any_size(
    lengths: tuple[int, ...], sizes: tuple[int, int, int, int], causal: bool, window: int | None
) -> None:
    def use(call, parts):  # type: ignore[no-untyped-def]
        return call(*parts, torch.empty(0), lengths, 0.2, causal, window)

    assert worst_error(native.IMPLEMENTATION, reference.IMPLEMENTATION, inputs(sum(lengths), *sizes), use) < TOLERANCE


def test_reads_the_slices_of_a_fused_projection() -> None:
    def use(call, parts):  # type: ignore[no-untyped-def]
        q_THC, k_TGC, v_TGC = parts[0].view(50, 8, 16).split((4, 2, 2), dim=1)
        return call(q_THC, k_TGC, v_TGC, torch.empty(0), (20, 30), 0.2)

    assert worst_error(native.IMPLEMENTATION, reference.IMPLEMENTATION, [random(50, 128)], use) < TOLERANCE


def test_neither_time_nor_threads_change_a_bit() -> None:
    lengths = (330, 96, 7, 0, 1)

    def use(*parts: Tensor) -> Tensor:
        return native.attention(*parts, torch.empty(0), lengths, 0.2)

    assert bits_differ(use, inputs(434, 4, 2, 20, 16)) == []


def test_survives_scores_far_from_zero() -> None:
    # Scores of several hundred: rounding them costs either implementation some 1e-4 in the gradients.
    parts = [
        (part * factor).float().double()
        for part, factor in zip(inputs(600, 2, 2, 8, 8), (222.2, 1.1, 1.1), strict=True)
    ]

    def use(call, parts):  # type: ignore[no-untyped-def]
        return call(*parts, torch.empty(0), (600,), 1.0)

    inherent = worst_error(reference.IMPLEMENTATION, reference.IMPLEMENTATION, parts, use)
    assert worst_error(native.IMPLEMENTATION, reference.IMPLEMENTATION, parts, use) < 10 * inherent


def test_scores_of_minus_infinity_count_nothing() -> None:
    # The first 300 keys, more than are computed at a time, are infinitely far from every query.
    q_THC, k_THC, v_THC = (part.float() for part in inputs(400, 1, 1, 4, 4))
    q_THC[..., 0], k_THC[:300, :, 0] = 1, float("-inf")
    expected = reference.attention(q_THC, k_THC, v_THC, torch.empty(0), (400,), 0.5)
    actual = native.attention(q_THC, k_THC, v_THC, torch.empty(0), (400,), 0.5)
    assert torch.equal(actual.isnan(), expected.isnan())
    assert torch.allclose(actual, expected, equal_nan=True, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_reaches_those_who_see_it_and_no_other_document(value: float) -> None:
    parts = [part.float() for part in inputs(60, 2, 2, 8, 8)]
    parts[2][12] = value
    output_THV = native.attention(*parts, torch.empty(0), (10, 30, 20), 0.5)
    finite_T = output_THV.isfinite().flatten(1).all(1)
    assert not finite_T[12:40].any()
    assert finite_T[:10].all()
    assert finite_T[40:].all()


def test_refuses_sinks_other_devices_and_dtypes() -> None:
    supports = native.IMPLEMENTATION.supports
    assert "sinks" in str(supports(Use.of("attention", "cpu", torch.float32, options={"sinks": True})))
    assert "not on cuda" in str(supports(Use.of("attention", "cuda", torch.float32)))
    assert "not in torch.float64" in str(supports(Use.of("attention", "cpu", torch.float64)))
    assert supports(Use.of("attention", "cpu", torch.float32, options={"window": 128, "sinks": False})) is None
