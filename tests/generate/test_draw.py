"""What may be drawn, and how often it is."""

from __future__ import annotations

import math

import pytest
import torch

from xtuner_core.contracts.sampling import Sampling
from xtuner_core.engine.draw import distribution, draw, uniform

LOGITS = torch.tensor([[0.0, 2.0, -1.0, 2.0, 1.0, 0.5]], dtype=torch.float64)


def support(**options) -> set[int]:
    return set(distribution(LOGITS, Sampling(**options))[0].isfinite().nonzero().flatten().tolist())


def test_temperature_zero_puts_all_on_the_first_of_the_most_probable():
    assert distribution(LOGITS, Sampling(temperature=0)).exp().tolist() == [[0, 1, 0, 0, 0, 0]]


def test_without_restrictions_it_is_the_softmax():
    expected = (LOGITS / 0.7).softmax(-1)
    assert torch.allclose(distribution(LOGITS, Sampling(temperature=0.7)).exp(), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("top_k", "kept"), [(1, {1}), (2, {1, 3}), (3, {1, 3, 4}), (6, set(range(6))), (99, set(range(6)))]
)
def test_top_k_keeps_the_most_probable_and_the_lower_id_among_equals(top_k, kept):
    assert support(top_k=top_k) == kept


def test_top_p_keeps_the_fewest_that_reach_it():
    probs = LOGITS.softmax(-1)[0]
    two = (probs[1] + probs[3]).item()
    assert support(top_p=1e-9) == {1}
    assert support(top_p=two - 1e-9) == {1, 3}
    assert support(top_p=two + 1e-9) == {1, 3, 4}


def test_top_p_counts_within_what_top_k_left():
    # Of the three kept, the two most probable hold 2 e^2 / (2 e^2 + e) = 0.84.
    assert support(top_k=3, top_p=0.8) == {1, 3}
    assert support(top_k=3, top_p=0.85) == {1, 3, 4}


@pytest.mark.parametrize("options", [{}, {"top_k": 4}, {"top_p": 0.7}, {"top_k": 4, "top_p": 0.7, "temperature": 2.0}])
def test_probabilities_add_up_to_one(options):
    assert distribution(LOGITS, Sampling(**options)).exp().sum().item() == pytest.approx(1, abs=1e-14)


def test_frequencies_follow_the_distribution_and_nothing_else_is_drawn():
    count = 20_000
    log_probs = distribution(LOGITS, Sampling(top_k=4))
    numbers = torch.tensor([uniform(0, 0, position) for position in range(count)], dtype=torch.float64)
    drawn = torch.bincount(draw(log_probs.expand(count, -1), numbers), minlength=6)
    for times, p in zip(drawn.tolist(), log_probs.exp()[0].tolist(), strict=True):
        assert abs(times - count * p) <= 4 * math.sqrt(count * p * (1 - p))


def test_the_largest_number_still_draws_a_token_that_may_be_drawn():
    log_probs = torch.tensor([[0.3, 0.3, 0.4 - 1e-16, 0.0]], dtype=torch.float64).log()
    assert draw(log_probs, torch.tensor([1 - 2.0**-52], dtype=torch.float64)).tolist() == [2]
    assert draw(log_probs.flip(-1), torch.tensor([0.0], dtype=torch.float64)).tolist() == [1]


def test_every_argument_changes_the_number():
    base = uniform(1, 2, 3)
    assert 0 <= base < 1
    assert len({base, uniform(1, 3, 2), uniform(2, 2, 3), uniform(1, 2, 4), uniform(12, 3, 3)}) == 5
