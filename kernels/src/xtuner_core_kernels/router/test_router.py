"""The router against a loop over tokens and against itself in float64."""

from __future__ import annotations

import pytest
import torch

from xtuner_core_kernels.operator import Use
from xtuner_core_kernels.router import reference
from xtuner_core_kernels.testing import random, relative_error, worst_error


@pytest.mark.parametrize("normalise", [False, True])
def test_weights_are_the_highest_probabilities(normalise: bool) -> None:
    logits_TE = random(20, 6)
    weights_TK, experts_TK, probs_TE = reference.router(logits_TE, 3, normalise)
    for token in range(20):
        exponentials = logits_TE[token].exp()
        order = sorted(range(6), key=lambda expert: -exponentials[expert].item())[:3]
        chosen = exponentials[order]
        expected = chosen / (chosen.sum() if normalise else exponentials.sum())
        assert experts_TK[token].tolist() == order
        assert relative_error(weights_TK[token], expected) < 1e-15
        assert relative_error(probs_TE[token], exponentials / exponentials.sum()) < 1e-15


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("shape", [(0, 4), (1, 5), (40, 16)])
def test_agrees_with_float64(normalise: bool, shape: tuple[int, int]) -> None:
    implementation = reference.IMPLEMENTATION
    error = worst_error(
        implementation, implementation, [random(*shape)], lambda call, parts: call(*parts, 3, normalise)
    )
    assert error < implementation.tolerance


def test_bfloat16_logits_give_float32_probabilities() -> None:
    weights_TK, experts_TK, probs_TE = reference.router(random(4, 8).bfloat16(), 2, normalise=True)
    assert weights_TK.dtype == probs_TE.dtype == torch.float32
    assert experts_TK.dtype == torch.int64


def test_integers_are_refused() -> None:
    assert "int64" in str(reference.IMPLEMENTATION.supports(Use.of("router", "cpu", torch.int64)))
