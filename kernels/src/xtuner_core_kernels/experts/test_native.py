"""Grouped experts in C: widths beside those of vectors, many rows and waves, bits, NaN, indices out of range."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xtuner_core_kernels.experts import native, reference
from xtuner_core_kernels.native.checks import bits_differ
from xtuner_core_kernels.testing import random, worst_error


def inputs(tokens: int, chosen: int, dim: int, width: int, experts: int) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    # Squared, so that some experts have many rows and some none.
    drawn = (torch.rand(tokens, chosen, generator=generator).square() * experts).long()
    matrices = [random(experts, 2 * width, dim, seed=1) * 0.1, random(experts, dim, width, seed=2) * 0.1]
    return [random(tokens, dim), *matrices, random(tokens, chosen, seed=3)], drawn


@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1, 1, 1),
        (5, 2, 16, 32, 3),
        (300, 2, 33, 17, 4),
        (97, 3, 40, 100, 9),
        (700, 4, 48, 24, 3),
        (64, 1, 300, 5, 2),
    ],
    ids=str,
)
def test_agrees_with_float64_at_any_width(sizes: tuple[int, int, int, int, int]) -> None:
    parts, experts_TK = inputs(*sizes)
    error = worst_error(native.IMPLEMENTATION, reference.IMPLEMENTATION, parts, lambda call, p: call(*p, experts_TK))
    assert error < native.IMPLEMENTATION.tolerance


def test_waves_of_experts_do_not_meet() -> None:
    # More rows and larger matrices than fit into one wave.
    parts, experts_TK = inputs(1300, 4, 24, 16, 7)
    error = worst_error(native.IMPLEMENTATION, reference.IMPLEMENTATION, parts, lambda call, p: call(*p, experts_TK))
    assert error < native.IMPLEMENTATION.tolerance


def test_neither_time_nor_threads_change_a_bit() -> None:
    parts, experts_TK = inputs(1300, 4, 40, 24, 7)
    assert bits_differ(lambda *p: native.experts(*p, experts_TK), parts) == []


def test_transposed_inputs_and_gradients_are_read_as_they_lie() -> None:
    parts, experts_TK = inputs(40, 2, 16, 8, 3)

    def use(call, p):  # type: ignore[no-untyped-def]
        return call(p[0].T.contiguous().T, p[1].mT.contiguous().mT, p[2], p[3], experts_TK).T

    assert worst_error(native.IMPLEMENTATION, reference.IMPLEMENTATION, parts, use) < native.IMPLEMENTATION.tolerance


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_reaches_its_token_and_no_other(value: float) -> None:
    parts, experts_TK = inputs(20, 2, 16, 8, 3)
    parts[0][7, 3] = value
    output_TD = native.experts(*(part.float() for part in parts), experts_TK)
    assert torch.equal(output_TD.isfinite().all(1), torch.arange(20) != 7)


def test_an_expert_out_of_range_is_an_error() -> None:
    parts, experts_TK = inputs(20, 2, 16, 8, 3)
    experts_TK[4, 1] = 3
    with pytest.raises(IndexError, match="outside 0 to 2"):
        native.experts(*(part.float() for part in parts), experts_TK)
