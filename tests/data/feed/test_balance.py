"""Balance of attention's cost: the same documents, no pack too full, and much of the imbalance gone."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtuner_core.data.balance import balance, costs, imbalance
from xtuner_core.data.packing import best_fit

CAPACITY = 50
LENGTHS = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=60)


@given(LENGTHS)
def test_it_deals_the_same_documents_to_as_many_packs_and_none_overflows(lengths: list[int]):
    packs = best_fit(lengths, CAPACITY)
    dealt = balance(lengths, packs, CAPACITY)
    assert len(dealt) == len(packs)
    assert sorted(index for pack in dealt for index in pack) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in pack) <= CAPACITY for pack in dealt)


@given(LENGTHS)
def test_the_dearest_pack_is_never_dearer_and_the_longest_documents_stand_first(lengths: list[int]):
    packs = best_fit(lengths, CAPACITY)
    dealt = balance(lengths, packs, CAPACITY)
    assert max(costs(lengths, dealt)) <= max(costs(lengths, packs))
    for pack in dealt:
        assert [lengths[i] for i in pack] == sorted((lengths[i] for i in pack), reverse=True)


@given(LENGTHS)
def test_the_same_packs_give_the_same_result(lengths: list[int]):
    packs = best_fit(lengths, CAPACITY)
    assert balance(lengths, packs, CAPACITY) == balance(lengths, packs, CAPACITY)


def test_costs_are_squares_and_imbalance_is_the_dearest_over_the_mean():
    assert costs([1, 2, 3], [[0, 2], [1]]) == [10, 4]
    assert imbalance([1, 2, 3], [[0, 2], [1]]) == 10 / 7


def mean_imbalance(lengths: list[int], micro_batches: int) -> tuple[float, float]:
    """Before and after, over the steps of a window in random order."""
    random, packs = Random(1), best_fit(lengths, 4096)
    random.shuffle(packs)
    steps = [packs[at : at + micro_batches] for at in range(0, len(packs) - micro_batches + 1, micro_batches)]
    before = [imbalance(lengths, step) for step in steps]
    after = [imbalance(lengths, balance(lengths, step, 4096)) for step in steps]
    return sum(before) / len(steps), sum(after) / len(steps)


@pytest.mark.parametrize(("micro_batches", "least_before", "most_after"), [(4, 1.6, 1.35), (16, 1.8, 1.08)])
def test_most_of_the_imbalance_of_skewed_lengths_goes(micro_batches: int, least_before: float, most_after: float):
    random = Random(0)
    lengths = [min(1024, max(2, int(random.lognormvariate(5, 1.2)))) for _ in range(4096)]
    before, after = mean_imbalance(lengths, micro_batches)
    assert before > least_before
    assert after < most_after


def test_documents_as_long_as_a_pack_cannot_be_balanced_and_stay():
    lengths = [CAPACITY, 10, 10, 10, 10, 10]
    assert balance(lengths, [[0], [1, 2, 3, 4, 5]], CAPACITY) == [[0], [1, 2, 3, 4, 5]]
