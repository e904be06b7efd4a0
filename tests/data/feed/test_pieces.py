"""Documents against the budget: a cut loses no target, truncation is counted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xtuner_core.data.pieces import Pieces

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=30)
LIMITS = st.integers(1, 20)


def located(lengths: list[int], limit: int, how: str) -> tuple[Pieces, list[tuple[int, int, int]]]:
    pieces = Pieces(np.array(lengths), limit, how)
    spans = pieces.locate(np.arange(len(pieces)))
    columns = (spans.documents.tolist(), spans.starts.tolist(), spans.lengths.tolist())
    return pieces, list(zip(*columns, strict=True))


@given(LENGTHS, LIMITS)
def test_every_position_of_every_document_is_in_one_piece(lengths: list[int], limit: int):
    pieces, spans = located(lengths, limit, "split")
    positions = [(document, start + i) for document, start, length in spans for i in range(length)]
    assert positions == [(document, i) for document, length in enumerate(lengths) for i in range(length - 1)]
    assert all(0 < length <= limit for _, _, length in spans)
    assert pieces.tokens == sum(length - 1 for length in lengths)
    assert pieces.truncated_tokens == 0


@given(LENGTHS, LIMITS)
def test_all_pieces_but_a_documents_last_are_full(lengths: list[int], limit: int):
    _, spans = located(lengths, limit, "split")
    assert all(length == limit for (one, _, length), (next_, _, _) in pairwise(spans) if one == next_)


@given(LENGTHS, LIMITS)
def test_a_truncated_document_keeps_its_beginning_and_what_is_lost_is_counted(lengths: list[int], limit: int):
    pieces, spans = located(lengths, limit, "truncate")
    expected = [(document, 0, min(length - 1, limit)) for document, length in enumerate(lengths) if length > 1]
    assert spans == expected
    assert pieces.tokens + pieces.truncated_tokens == sum(length - 1 for length in lengths)


def test_documents_above_the_budget_and_without_a_target_are_counted():
    pieces, _ = located([11, 12, 1, 30, 1, 2], 10, "split")
    assert (pieces.over, pieces.without_target) == (2, 2)


def test_pieces_are_found_in_any_order():
    pieces, spans = located([11, 25, 1, 8], 10, "split")
    some = pieces.locate(np.array([4, 0, 2]))
    assert [some.documents.tolist(), some.starts.tolist(), some.lengths.tolist()] == [
        [3, 0, 1],
        [0, 0, 10],
        [7, 10, 10],
    ]
    assert spans == [(0, 0, 10), (1, 0, 10), (1, 10, 10), (1, 20, 4), (3, 0, 7)]
