"""A text that is tokenised in pieces has the ids that one call gives it, whatever the tokenizer and the text."""

from __future__ import annotations

import lzma
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from xtuner_core.contracts.dataset import Origin, TextRecord
from xtuner_core.contracts.tokenizer import Alignment
from xtuner_core.data.encoding.long_text import align_long, encode_long
from xtuner_core.data.encoding.text import TextEncoder
from xtuner_core.hf.tokenizer import HfTokenizer, load_tokenizer

KJV = Path(__file__).parents[3] / "xtuner_core" / "builtin" / "kjv"
SIZE = 12_000
DRAW = random.Random(0)
DIGITS_BY_THREE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
)


@cache
def real_text() -> str:
    with lzma.open(KJV / "text.xz", "rt", encoding="utf-8") as file:
        return file.read(200_000)


TEXTS = {
    "real": lambda: real_text()[:SIZE],
    "real without spaces": lambda: "".join(real_text().split())[:SIZE],
    "one letter": lambda: "a" * SIZE,
    "two letters": lambda: "ab" * (SIZE // 2),
    "random letters": lambda: "".join(DRAW.choices("abcdefghij", k=SIZE)),
    "digits": lambda: "".join(DRAW.choices("0123456789", k=SIZE)),
    "zeros": lambda: "0" * SIZE,
    "spaces": lambda: " " * SIZE,
    "lines": lambda: "\n \n" * (SIZE // 3),
    "special tokens": lambda: "</s><s> x </s>" * (SIZE // 14),
    "many scripts": lambda: "".join(
        chr(DRAW.choice([97, 0x301, 0xAC00, 0x1F600]) + DRAW.randrange(64)) for _ in range(SIZE)
    ),
}
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SPLITS = {
    "bytes": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "digits by three": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(DIGITS_BY_THREE), "isolated"), BYTES]),
    "metaspace": pre_tokenizers.Metaspace(prepend_scheme="first"),
    "metaspace without words": pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
    "unigram": pre_tokenizers.Metaspace(),
}


@pytest.fixture(scope="module", params=["bundled", *SPLITS, "composed"])
def tokenizer(request) -> HfTokenizer:
    if request.param == "bundled":
        return load_tokenizer(KJV)
    name = "bytes" if request.param == "composed" else request.param
    trained = _trained(SPLITS[name], unigram=name == "unigram")
    if request.param == "composed":
        trained.normalizer = normalizers.NFC()
    return HfTokenizer(trained, end_of_text=1, folder=Path())


def _trained(split: pre_tokenizers.PreTokenizer, *, unigram: bool) -> tokenizers.Tokenizer:
    """Trained on some real text, and on runs of letters, so that long tokens of one letter exist."""
    special, size = ["<s>", "</s>", "<unk>"], 600
    if unigram:
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    tokenizer.pre_tokenizer = split
    text = real_text()[:60_000]
    lines = [text[start : start + 2000] for start in range(0, len(text), 2000)]
    tokenizer.train_from_iterator([*lines, *["aaaaaaaaaaaaaaaa abababab 000 00 0"] * 500], trainer)
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_the_ids_are_those_of_one_call(tokenizer, text):
    content = TEXTS[text]()
    whole = tokenizer.align_batch([content])[0]
    assert np.array_equal(encode_long(content, tokenizer, piece=4096, overlap=1024), whole.token_ids)


def test_places_count_in_the_whole_text(tokenizer):
    text = real_text()[:SIZE]
    whole, found = tokenizer.align_batch([text])[0], align_long(text, tokenizer, piece=4096, overlap=1024)
    assert np.array_equal(found.starts, whole.starts)
    assert np.array_equal(found.ends, whole.ends)


class Counting:
    """Stands before a tokenizer and takes note of the longest call and of all characters."""

    def __init__(self, tokenizer: HfTokenizer) -> None:
        self.merges = tokenizer.merges
        self.longest = self.characters = 0
        self._tokenizer = tokenizer

    def align_batch(self, texts: list[str]) -> list[Alignment]:
        self.longest = max(self.longest, *map(len, texts))
        self.characters += sum(map(len, texts))
        return self._tokenizer.align_batch(texts)


@pytest.mark.parametrize("text", ["real", "real without spaces", "digits", "zeros"])
def test_no_call_is_longer_than_a_piece_and_little_is_tokenised_twice(text):
    counting, content = Counting(load_tokenizer(KJV)), TEXTS[text]()
    encode_long(content, counting, piece=8192, overlap=1024)
    assert counting.longest == 8192
    assert counting.characters < 1.6 * len(content)


def test_pieces_that_never_agree_end_as_one_call():
    """Nothing says where a word begins, and neighbours do not decide: only one call knows."""

    class Stubborn:
        merges = False

        def align_batch(self, texts):
            places = [np.arange(len(text)) for text in texts]
            return [Alignment(p.astype(np.uint32) + len(p), p, p + 1, p * 0) for p in places]

    found = encode_long("x" * 3000, Stubborn(), piece=512, overlap=128)
    assert len(found) == 3000
    assert found[0] == 3000  # of the call that reached over all


def test_a_long_record_is_encoded_in_pieces_and_a_short_one_is_not():
    tokenizer = load_tokenizer(KJV)
    texts = ["In the beginning", "word " * 70_000, "the earth"]
    records = [TextRecord(origin=Origin("f", n), text=text) for n, text in enumerate(texts)]
    for text, (document,) in zip(texts, TextEncoder(tokenizer)(records), strict=True):
        expected = [tokenizer.end_of_text, *tokenizer.encode(text), tokenizer.end_of_text]
        assert document.token_ids.tolist() == expected
        assert document.weights is None
