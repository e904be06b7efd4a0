"""Best-fit packing: nothing lost, nothing over the budget, little filler."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from xtuner_core.data.packing import best_fit

CAPACITY = 50
LENGTHS = st.lists(st.integers(1, CAPACITY), max_size=60)


@given(LENGTHS)
def test_every_document_is_packed_once_and_no_pack_overflows(lengths: list[int]):
    packs = best_fit(lengths, CAPACITY)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in pack) <= CAPACITY for pack in packs)


@given(LENGTHS)
def test_a_pack_is_begun_only_where_no_earlier_one_has_room(lengths: list[int]):
    packs = best_fit(lengths, CAPACITY)
    for later, pack in enumerate(packs):
        longest = lengths[pack[0]]
        taken = [sum(lengths[i] for i in earlier if lengths[i] >= longest) for earlier in packs[:later]]
        assert all(total + longest > CAPACITY for total in taken)


@given(LENGTHS)
def test_documents_of_a_pack_stand_longest_first(lengths: list[int]):
    for pack in best_fit(lengths, CAPACITY):
        assert [lengths[i] for i in pack] == sorted((lengths[i] for i in pack), reverse=True)


def test_long_documents_cut_into_pieces_need_the_least_possible_number_of_packs():
    random = Random(0)
    documents = [random.randint(50, 4500) for _ in range(1000)]
    lengths = [min(512, length - start) for length in documents for start in range(0, length, 512)]
    least = -(-sum(lengths) // 4096)
    assert len(best_fit(lengths, 4096)) == least


def test_each_goes_to_the_fullest_pack_that_takes_it():
    assert best_fit([6, 5, 5, 4, 4], 10) == [[0, 3], [1, 2], [4]]
    assert best_fit([7, 5, 3], 10) == [[0, 2], [1]]


def one_by_one(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing as it is defined, a document at a time, every pack looked at."""
    packs: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        left = [capacity - sum(lengths[i] for i in pack) for pack in packs]
        fitting = [(space, number) for number, space in enumerate(left) if space >= lengths[index]]
        if fitting:
            packs[min(fitting)[1]].append(index)
        else:
            packs.append([index])
    return packs


@given(LENGTHS)
def test_equal_lengths_are_placed_together_as_they_would_be_one_by_one(lengths: list[int]):
    assert best_fit(lengths, CAPACITY) == one_by_one(lengths, CAPACITY)
