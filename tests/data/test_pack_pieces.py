"""Texts to ids, ids to pieces and windows: no target lost, none counted twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from xtuner_core.contracts.batch import IGNORE
from xtuner_core.data.tokenise import count_split, cut, tokenise, windows

SIZES = st.integers(2, 200)
LIMITS = st.integers(1, 40)


class Characters:
    """Code points as ids."""

    size, end_of_text, folder = 0x110000, 0, Path()

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))


def test_a_text_has_the_end_of_text_before_and_after_it():
    assert [ids.tolist() for ids in tokenise(["ab", ""], Characters())] == [[0, 97, 98, 0], [0, 0]]


@given(SIZES, LIMITS)
def test_pieces_put_together_predict_every_token_but_the_first_once(size: int, limit: int):
    ids = torch.arange(size)
    pieces = list(cut(ids, limit))
    assert torch.equal(torch.cat([piece.token_ids for piece in pieces]), ids[:-1])
    assert torch.equal(torch.cat([piece.labels for piece in pieces]), ids[1:])
    assert all(bool((piece.weights == 1).all()) for piece in pieces)
    assert all(len(piece) == limit for piece in pieces[:-1])
    assert len(pieces[-1]) <= limit


@given(SIZES, LIMITS, st.floats(0, 0.99))
def test_windows_count_every_token_once_with_enough_context_before_it(size: int, limit: int, share: float):
    overlap = min(int(limit * share), limit - 1)
    ids = torch.arange(size)
    counted: list[int] = []
    for window in windows(ids, limit, overlap):
        assert len(window) <= limit
        assert torch.equal(window.labels[window.labels != IGNORE], window.token_ids[window.labels != IGNORE] + 1)
        assert torch.equal(window.weights > 0, window.labels != IGNORE)
        context = int((window.labels == IGNORE).sum())
        assert context >= min(overlap, int(window.token_ids[0]))
        counted += window.labels[context:].tolist()
    assert counted == list(range(1, size))


@given(st.integers(42, 200))
def test_windows_of_a_long_document_are_all_equally_long(size: int):
    assert {len(window) for window in windows(torch.arange(size), 40, 20)} == {40}


def test_documents_that_are_cut_are_counted():
    ids = list(tokenise(["a" * 9, "a" * 10, ""], Characters()))
    assert count_split([len(each) for each in ids], 10) == 1
    assert [len(list(cut(each, 10))) for each in ids] == [1, 2, 1]
