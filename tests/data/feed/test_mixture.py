"""Mixtures: each piece once a pass, shares as the settings say in every window, names that are known."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xtuner_core.config.root import DataConfig
from xtuner_core.data.mixture import Mixture, Part, check_names, passes
from xtuner_core.errors import ConfigError


def mixture(sizes: dict[str, int], times: list[float], *, window: int = 10, shuffle: bool = True, seed: int = 0):
    parts = [Part(name, size, 10 * size) for name, size in sizes.items()]
    return Mixture(parts, times, window=window, seed=seed, shuffle=shuffle)


def taken(mixed: Mixture, epoch: int, part: int) -> list[int]:
    windows = range(mixed.windows(epoch))
    return [piece for window in windows for piece in mixed.window(epoch, window)[part].tolist()]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.integers(1, 25), st.integers(3, 30), st.booleans())
def test_each_piece_comes_once_an_epoch(first: int, second: int, window: int, shuffle: bool):
    mixed = mixture({"a": first, "b": second}, [1.0, 1.0], window=window, shuffle=shuffle)
    for epoch in range(2):
        assert sorted(taken(mixed, epoch, 0)) == list(range(first))
        assert sorted(taken(mixed, epoch, 1)) == list(range(second))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 3), st.integers(1, 30))
def test_a_fraction_goes_on_where_the_epoch_before_ended(times: float, size: int):
    mixed = mixture({"a": size}, [times])
    whole = [piece for epoch in range(5) for piece in taken(mixed, epoch, 0)]
    assert len(whole) == int(5 * times * size)
    for start in range(0, len(whole) - size + 1, size):
        assert sorted(whole[start : start + size]) == list(range(size))


def test_the_order_is_new_each_pass_and_its_own_for_each_seed_and_dataset():
    mixed = [mixture({"a": 30, "b": 30}, [1.0, 1.0], seed=seed) for seed in range(2)]
    orders = {tuple(taken(each, epoch, part)) for each in mixed for epoch in range(3) for part in range(2)}
    assert len(orders) == 12


def test_without_shuffling_pieces_come_in_the_order_of_their_files():
    mixed = mixture({"a": 25}, [1.0], shuffle=False)
    assert [taken(mixed, epoch, 0) for epoch in range(2)] == [list(range(25))] * 2


def test_every_window_has_the_mixture_of_the_whole_to_a_piece():
    mixed = mixture({"a": 900, "b": 100}, [1.0, 1.0], window=50)
    sizes = [[len(part) for part in mixed.window(0, window)] for window in range(mixed.windows(0))]
    assert sizes == [[45, 5]] * 20


def test_cursors_count_what_came_before_a_window():
    mixed = mixture({"a": 33, "b": 8}, [1.0, 2.0], window=10)
    before: Counter[int] = Counter()
    for epoch in range(2):
        for window in range(mixed.windows(epoch)):
            assert mixed.cursors(epoch, window) == [before[0], before[1]]
            before.update({part: len(found) for part, found in enumerate(mixed.window(epoch, window))})


def test_weights_share_out_the_tokens_whatever_the_sizes():
    parts = [Part("large", 1000, 90_000), Part("small", 500, 10_000)]
    times = passes(DataConfig(weights={"large": 3, "small": 1}), parts)
    assert times == pytest.approx([75_000 / 90_000, 25_000 / 10_000])


def test_epochs_count_passes_and_are_one_where_none_is_named():
    parts = [Part("a", 10, 100), Part("b", 10, 100)]
    assert passes(DataConfig(epochs={"b": 2.5}), parts) == [1.0, 2.5]
    assert passes(DataConfig(), parts) == [1.0, 1.0]


@pytest.mark.parametrize("key", ["weights", "epochs"])
def test_a_name_that_is_no_dataset_is_refused_with_the_near_one(key: str):
    with pytest.raises(ConfigError, match=f"data.{key} names 'aplaca'") as caught:
        check_names(DataConfig(**{key: {"alpaca": 1.0, "aplaca": 2.0}}), ["alpaca"], ["alpaca"])
    assert caught.value.fix == "write alpaca"


def test_weights_that_leave_a_dataset_out_are_refused():
    with pytest.raises(ConfigError, match=r"data\.weights gives no share to b, c"):
        check_names(DataConfig(weights={"a": 1.0}), "abc", "abc")


def test_only_datasets_that_are_trained_on_have_shares():
    check_names(DataConfig(weights={"a": 1.0}), "ab", "a")
    with pytest.raises(ConfigError, match=r"data\.epochs names 'b', which has no training part"):
        check_names(DataConfig(epochs={"b": 1.0}), "ab", "a")
