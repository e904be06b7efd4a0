"""The permutation: each thing once, an order that the key decides, the same on every system."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtuner_core.data.shuffle import Permutation


@given(st.integers(1, 3000), st.integers())
def test_each_thing_stands_at_one_place(size: int, seed: int):
    assert sorted(Permutation(size, seed)(np.arange(size)).tolist()) == list(range(size))


@given(st.integers(1, 10**12), st.data())
def test_any_places_can_be_asked_for_in_any_order(size: int, data: st.DataObject):
    places = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    permutation = Permutation(size, "key")
    together, alone = permutation(places), [permutation(np.array([place]))[0] for place in places]
    assert together.tolist() == alone
    assert together.dtype == np.int64
    assert 0 <= together.min() <= together.max() < size


def test_the_order_is_the_same_on_every_system():
    assert Permutation(10, 0, "name", 3)(np.arange(10)).tolist() == [8, 5, 7, 9, 6, 4, 2, 3, 0, 1]


def test_another_key_is_another_order():
    keys = [(seed, name, number) for seed in range(3) for name in "ab" for number in range(3)]
    orders = {tuple(Permutation(50, *key)(np.arange(50)).tolist()) for key in keys}
    assert len(orders) == len(keys)


@pytest.mark.parametrize("size", [3, 13])
def test_every_thing_comes_to_every_place_about_equally_often(size: int):
    draws = 100 * size
    found = np.stack([Permutation(size, key)(np.arange(size)) for key in range(draws)])
    counts = np.stack([np.bincount(found[:, place], minlength=size) for place in range(size)])
    # 100 times each, chi-squared with (size - 1)^2 degrees of freedom: six standard deviations
    chi2, freedom = ((counts - 100) ** 2 / 100).sum(), (size - 1) ** 2
    assert abs(chi2 - freedom) < 6 * np.sqrt(2 * freedom)


def test_neighbours_are_no_longer_neighbours():
    found = Permutation(100_000, 7)(np.arange(100_000))
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.015
    assert (np.diff(found) == 1).sum() < 10
