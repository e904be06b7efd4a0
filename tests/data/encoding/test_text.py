"""Plain texts and token ids: what becomes of each record, and why some are broken."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, Origin, TextRecord, TokenRecord
from xtuner_core.data.encoding.text import TextEncoder
from xtuner_core.hf.tokenizer import load_tokenizer

KJV = Path(__file__).parents[3] / "xtuner_core" / "builtin" / "kjv"
AT = Origin("texts.jsonl", 3)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(load_tokenizer(KJV))


def test_a_text_stands_between_two_ends_of_text(encoder):
    tokenizer = load_tokenizer(KJV)
    (found,) = encoder([TextRecord(origin=AT, text="In the beginning")])
    assert found[0].token_ids.dtype == np.uint32
    assert found[0].token_ids.tolist() == [0, *tokenizer.encode("In the beginning"), 0]


def test_a_special_token_in_a_text_is_that_token(encoder):
    (found,) = encoder([TextRecord(origin=AT, text="end<|endoftext|>begin")])
    assert found[0].token_ids.tolist().count(0) == 3


def test_token_ids_pass_through(encoder):
    (plain,), (weighted,) = encoder(
        [TokenRecord(origin=AT, token_ids=[3, 2, 1]), TokenRecord(origin=AT, token_ids=[3, 2], weights=[1, 0.25])]
    )
    assert plain.token_ids.tolist() == [3, 2, 1]
    assert plain.weights is None
    assert weighted.weights.tolist() == [1, 0.25]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (TextRecord(origin=AT, text="ab\ud800"), r"character 3 of the text is a lone surrogate, U\+D800"),
        (ChatRecord(origin=AT, messages=[]), "a conversation .* algorithm=sft trains on conversations"),
        (TokenRecord(origin=AT, token_ids=[1, 4096]), "token 1 is 4096, but the tokenizer's ids run from 0 to 4095"),
        (TokenRecord(origin=AT, token_ids=[1, -1]), "token 1 is -1"),
        (TokenRecord(origin=AT, token_ids=[1]), "1 token ids; the first predicts the second"),
        (TokenRecord(origin=AT, token_ids=[]), "0 token ids"),
        (TokenRecord(origin=AT, token_ids=[1, 2.5]), "not a flat list of whole numbers"),
        (TokenRecord(origin=AT, token_ids=["a", "b"]), "not a flat list of whole numbers"),
        (TokenRecord(origin=AT, token_ids=[[1], [2]]), "not a flat list of whole numbers"),
        (TokenRecord(origin=AT, token_ids=[[1], [2, 3]]), "not a flat list of whole numbers"),
        (TokenRecord(origin=AT, token_ids=[1, None]), "not a flat list of whole numbers"),
        (TokenRecord(origin=AT, token_ids=[1, 2], weights=[1]), "weights is not a flat list of 2 numbers"),
        (TokenRecord(origin=AT, token_ids=[1, 2], weights=[1, "x"]), "weights is not a flat list of 2 numbers"),
        (TokenRecord(origin=AT, token_ids=[1, 2], weights=[1, None]), "weights is not a flat list of 2 numbers"),
        (TokenRecord(origin=AT, token_ids=[1, 2], weights=[0, float("inf")]), "weight 1 is inf"),
        (TokenRecord(origin=AT, token_ids=[1, 2], weights=[0, -1]), "weight 1 is -1"),
        (TokenRecord(origin=AT, token_ids=[1, 2], weights=[1, 0]), "no token has a weight above 0"),
    ],
)
def test_what_cannot_be_trained_on_says_why_and_leaves_its_neighbours_alone(encoder, record, reason):
    good = TextRecord(origin=AT, text="Amen")
    first, broken, last = encoder([good, record, good])
    assert isinstance(broken, BrokenRecord)
    assert broken.origin == AT
    assert re.search(reason, broken.reason), broken.reason
    assert first[0].token_ids.tolist() == last[0].token_ids.tolist()


def test_a_broken_record_is_passed_on(encoder):
    broken = BrokenRecord(origin=AT, reason="not JSON")
    assert encoder([broken]) == [broken]


def test_the_encoder_travels_and_its_fingerprint_follows_the_tokenizer(encoder, tmp_path):
    assert pickle.loads(pickle.dumps(encoder)).fingerprint() == encoder.fingerprint()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((KJV / name).read_bytes())
    assert TextEncoder(load_tokenizer(tmp_path)).fingerprint() == encoder.fingerprint()
    changed = (KJV / "tokenizer.json").read_text().replace('"<|endoftext|>"', '"<|end|>"')
    (tmp_path / "tokenizer.json").write_text(changed)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    assert TextEncoder(load_tokenizer(tmp_path)).fingerprint() != encoder.fingerprint()
