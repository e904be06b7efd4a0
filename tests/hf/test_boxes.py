"""Boxes of ranks and regions of weight maps: what they share is what slicing whole tensors gives."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xtuner_core.contracts.weights import Init, Part, Span, WeightEntry
from xtuner_core.hf.boxes import piece_of, runs

INIT = Init("constant", 0.0)


@st.composite
def cases(draw):
    """A tensor, an entry that selects a region of it, and a box."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    index: list[int | Span] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        if draw(st.booleans()):
            index.append(draw(st.integers(0, size - 1)))
        else:
            start = draw(st.integers(0, size - 1))
            index.append(Span(start, draw(st.integers(start + 1, size)), draw(st.integers(1, 3))))
    rest = len(shape) - sum(isinstance(item, int) for item in index)
    turned = rest >= 2 and draw(st.booleans())
    edges = [sorted((draw(st.integers(0, size)), draw(st.integers(0, size)))) for size in shape]
    whole = torch.arange(prod(shape)).view(shape)
    box = tuple(slice(start, stop) for start, stop in edges)
    part = Part(tensor=whole[box].clone(), shape=tuple(shape), start=tuple(start for start, _ in edges))
    entry = WeightEntry(hf_name="x", parameter="p", index=tuple(index), transpose=turned, init=INIT)
    return whole, entry, part, box


@settings(max_examples=300, deadline=None)
@given(cases())
def test_a_piece_holds_what_region_and_box_have_in_common(case):
    whole, entry, part, box = case
    region, piece = entry.region(whole), piece_of(entry, part)
    common = set(region.flatten().tolist()) & set(whole[box].flatten().tolist())
    if piece is None:
        assert not common
        return
    assert torch.equal(piece.tensor, region[piece.index])
    assert sorted(common) == sorted(piece.tensor.flatten().tolist())


@settings(max_examples=100, deadline=None)
@given(cases())
def test_a_piece_is_a_view_of_what_the_rank_holds(case):
    _, entry, part, _ = case
    piece = piece_of(entry, part)
    if piece is not None:
        piece.tensor.fill_(-1)
        assert int((part.tensor == -1).sum()) == piece.tensor.numel()


@settings(max_examples=200, deadline=None)
@given(cases())
def test_runs_are_the_elements_of_a_box_in_order_and_no_two_of_them_touch(case):
    whole, _, _, box = case
    if not whole[box].numel():
        return
    found = list(runs(box, whole.shape))
    assert [at for first, length in found for at in range(first, first + length)] == whole[box].flatten().tolist()
    assert all(first + length < later for (first, length), (later, _) in pairwise(found))


def test_a_number_without_dims_is_one_run():
    assert list(runs((), ())) == [(0, 1)]
