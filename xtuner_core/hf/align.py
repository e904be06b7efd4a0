"""Which characters the tokens of a `tokenizers.Tokenizer` stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import tokenizers
import tokenizers.models

from xtuner_core.contracts.tokenizer import Alignment

OPEN, CLOSE, FIRST = "\ufdd4", "\ufdd5", 0xF0000
"""A stand-in is a character of a private plane between two that Unicode keeps out of text for good."""


def align(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> list[Alignment]:
    """Tokenise each text, without special tokens added."""
    return [_aligned(encoding) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def _aligned(encoding: tokenizers.Encoding) -> Alignment:
    places = chain.from_iterable(encoding.offsets)
    offsets = np.fromiter(places, dtype=np.int64, count=2 * len(encoding)).reshape(-1, 2)
    words = np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int64)
    ids = np.array(encoding.ids, dtype=np.uint32)
    return Alignment(ids, offsets[:, 0], offsets[:, 1], words)


class LiteralTokenizer:
    """A tokenizer to which the texts of special tokens are text, and which knows the tokens by stand-ins.

    A stand-in is an added token with the rules of its token, so that everything around it is tokenised as it is
    around the token itself.
    """

    def __init__(self, description: str) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(description)
        self._tokenizer.encode_special_tokens = True
        self.merges = isinstance(self._tokenizer.model, tokenizers.models.BPE)
        added = self._tokenizer.get_added_tokens_decoder()
        special = {number: token for number, token in added.items() if token.special}
        texts = [token.content for token in special.values()]
        self.stand_ins: Mapping[str, str] = {text: f"{OPEN}{chr(FIRST + n)}{CLOSE}" for n, text in enumerate(texts)}
        self._tokenizer.add_tokens([_stand_in(token, self.stand_ins[token.content]) for token in special.values()])
        self._vocabulary = np.arange(
            1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values()), dtype=np.uint32
        )
        for number, token in special.items():
            self._vocabulary[self._tokenizer.token_to_id(self.stand_ins[token.content])] = number

    def align_batch(self, texts: Sequence[str]) -> list[Alignment]:
        """Ids of each text, those of the tokens for their stand-ins, and the characters that each id stands for."""
        found = align(self._tokenizer, texts)
        return [Alignment(self._vocabulary[a.token_ids], a.starts, a.ends, a.words) for a in found]


def _stand_in(token: tokenizers.AddedToken, text: str) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        text, lstrip=token.lstrip, rstrip=token.rstrip, single_word=token.single_word, normalized=False, special=False
    )
