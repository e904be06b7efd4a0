"""Plain texts to token ids, the short ones many at once, a long one piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, Record, TextRecord, TokenRecord
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.data.encoding.encoded import Encoded, Encoding
from xtuner_core.data.encoding.long_text import PIECE, encode_long
from xtuner_core.data.encoding.tokens import encode_tokens

GROUP = 1 << 20
"""Characters that the tokenizer gets in one call, at most; it takes about 100 bytes for each token of a call."""


class TextEncoder:
    """The encoder of pre-training: a text between two ends of text, every token but the first a target.

    A special token that stands in a text as text (`<|endoftext|>`) becomes that token, as with `transformers`:
    corpora use it to mark documents, or the gaps of fill-in-the-middle.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def fingerprint(self) -> str:
        """Identify the tokenizer and the form of a document."""
        return hashlib.sha256(f"text 1 {self._tokenizer.fingerprint()}".encode()).hexdigest()

    def __call__(self, records: Sequence[Record | BrokenRecord]) -> list[Encoding]:
        """Answer each record; a conversation has no place in pre-training and is answered as broken."""
        texts = encode_texts([r for r in records if isinstance(r, TextRecord)], self._tokenizer)
        return [next(texts) if isinstance(record, TextRecord) else self._other(record) for record in records]

    def _other(self, record: ChatRecord | TokenRecord | BrokenRecord) -> Encoding:
        if isinstance(record, BrokenRecord):
            return record
        if isinstance(record, TokenRecord):
            return encode_tokens(record, self._tokenizer.size)
        reason = "a conversation (`messages`), where plain text is trained on; algorithm=sft trains on conversations"
        return BrokenRecord(origin=record.origin, reason=reason)


def encode_texts(records: Sequence[TextRecord], tokenizer: Tokenizer) -> Iterator[Encoding]:
    """Yield each text's document: `end_of_text`, its ids, `end_of_text`.

    The id in front lets the first token be predicted as the start of a document; the one behind is predicted
    too, so that a model learns where documents end and its probabilities form a complete code.
    """
    flaws = [text_flaw(record.text) for record in records]
    ids = encode_all([record.text for record, flaw in zip(records, flaws, strict=True) if not flaw], tokenizer)
    end = np.array([tokenizer.end_of_text], dtype=np.uint32)
    for record, flaw in zip(records, flaws, strict=True):
        if flaw:
            yield BrokenRecord(origin=record.origin, reason=flaw)
        else:
            yield (Encoded(np.concatenate([end, next(ids), end])),)


def encode_all(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[NDArray[np.uint32]]:
    """Yield the ids of each text, without end of text; memory is bounded whatever their lengths."""
    for group in groups(texts):
        if len(group) == 1 and len(group[0]) > PIECE:
            yield encode_long(group[0], tokenizer)
        else:
            yield from tokenizer.encode_batch(group)


def text_flaw(text: str) -> str:
    """Why a text cannot be tokenised, or an empty string."""
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"character {error.start + 1} of the text is a lone surrogate, U+{ord(text[error.start]):04X}"
    return ""


def groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Neighbours up to `GROUP` characters together; one above `PIECE` alone."""
    group: list[str] = []
    held = 0
    for text in texts:
        if group and (held + len(text) > GROUP or len(text) > PIECE):
            yield group
            group, held = [], 0
        group.append(text)
        held += len(text)
        if len(text) > PIECE:
            yield group
            group, held = [], 0
    if group:
        yield group
