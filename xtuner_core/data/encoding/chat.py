"""Conversations to token ids, with the assistant's turns as targets. t tokens of a document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, Record, TextRecord
from xtuner_core.contracts.tokenizer import Alignment, LiteralAligner, Tokenizer
from xtuner_core.data.chat.config import ChatConfig
from xtuner_core.data.chat.literal import align_literal
from xtuner_core.data.chat.marks import Rendered
from xtuner_core.data.chat.renderer import ChatRenderer
from xtuner_core.data.chat.samples import Sample
from xtuner_core.data.encoding.encoded import Encoded, Encoding
from xtuner_core.data.encoding.long_text import PIECE, align_long
from xtuner_core.data.encoding.text import encode_texts, groups, text_flaw
from xtuner_core.data.encoding.tokens import encode_tokens


class ChatEncoder:
    """The encoder of supervised fine-tuning.

    A conversation is rendered by the tokenizer's chat template, and tokenised as `transformers` does it; a token of
    which any character is trained on is. A plain text is trained on whole, as in pre-training, and token ids by the
    weights that they bring.

    :raises DataError: a chat template cannot be read or is not Jinja.
    """

    def __init__(self, tokenizer: Tokenizer, config: ChatConfig) -> None:
        self._tokenizer = tokenizer
        self._renderer = ChatRenderer(tokenizer, config)
        self._literal: LiteralAligner | None = None

    def fingerprint(self) -> str:
        """Identify tokenizer, templates and settings."""
        about = json.dumps(self._renderer.description(), sort_keys=True, default=str)
        return hashlib.sha256(f"chat 1 {self._tokenizer.fingerprint()} {about}".encode()).hexdigest()

    def __call__(self, records: Sequence[Record | BrokenRecord]) -> list[Encoding]:
        """Answer each record, whatever its kind."""
        texts = encode_texts([record for record in records if isinstance(record, TextRecord)], self._tokenizer)
        chats = self._encode_chats([record for record in records if isinstance(record, ChatRecord)])
        return [self._answer(record, texts, chats) for record in records]

    def aligned(self, record: ChatRecord) -> list[tuple[str, Alignment]]:
        """The text and the tokens of each document, to look at; none where the conversation is broken."""
        samples = self._rendered(record)
        if isinstance(samples, BrokenRecord):
            return []
        aligned = self._align([sample.rendered for sample in samples])
        return [(sample.rendered.text, tokens) for sample, tokens in zip(samples, aligned, strict=True)]

    def prompt(self, record: ChatRecord) -> NDArray[np.uint32] | BrokenRecord:
        """Ids of what a model is given to answer in place of the last assistant message: uint32 [t]."""
        rendered = self._renderer.prompt(record)
        return rendered if isinstance(rendered, BrokenRecord) else next(self._align([rendered])).token_ids

    def _answer(self, record: Record | BrokenRecord, texts: Iterator[Encoding], chats: Iterator[Encoding]) -> Encoding:
        if isinstance(record, BrokenRecord):
            return record
        if isinstance(record, TextRecord):
            return next(texts)
        return next(chats) if isinstance(record, ChatRecord) else encode_tokens(record, self._tokenizer.size)

    def _encode_chats(self, records: Sequence[ChatRecord]) -> Iterator[Encoding]:
        rendered = [self._rendered(record) for record in records]
        wanted = [sample.rendered for each in rendered if not isinstance(each, BrokenRecord) for sample in each]
        aligned = self._align(wanted)
        for record, each in zip(records, rendered, strict=True):
            if isinstance(each, BrokenRecord):
                yield each
                continue
            found = tuple(_encoded(sample, next(aligned)) for sample in each)
            flaw = next((flaw for flaw in map(_flaw, found) if flaw), "")
            yield BrokenRecord(origin=record.origin, reason=flaw) if flaw else found

    def _rendered(self, record: ChatRecord) -> list[Sample] | BrokenRecord:
        samples = self._renderer.samples(record)
        if isinstance(samples, BrokenRecord):
            return samples
        flaw = next((flaw for flaw in (text_flaw(sample.rendered.text) for sample in samples) if flaw), "")
        return BrokenRecord(origin=record.origin, reason=flaw) if flaw else samples

    def _align(self, renderings: Sequence[Rendered]) -> Iterator[Alignment]:
        """Yield the tokens of each, those together that are short and spell no special token as text."""
        plain = self._align_plain([rendered.text for rendered in renderings if not rendered.literal])
        for rendered in renderings:
            yield self._align_literal(rendered) if rendered.literal else next(plain)

    def _align_plain(self, texts: Sequence[str]) -> Iterator[Alignment]:
        for group in groups(texts):
            if len(group) == 1 and len(group[0]) > PIECE:
                yield align_long(group[0], self._tokenizer)
            else:
                yield from self._tokenizer.align_batch(group)

    def _align_literal(self, rendered: Rendered) -> Alignment:
        if self._literal is None:
            self._literal = self._tokenizer.literal()
        return align_literal(rendered, self._literal, self._renderer.specials)


def _encoded(sample: Sample, tokens: Alignment) -> Encoded:
    return Encoded(tokens.token_ids, _weights(sample, tokens))


def _weights(sample: Sample, tokens: Alignment) -> NDArray[np.float32] | None:
    """What each token counts: float32 [t]; one that reaches over the border of a span belongs to it."""
    if sample.trained is None:
        return None
    weights = np.zeros(len(tokens.token_ids), dtype=np.float32)
    for start, end, weight in sample.trained:
        low, high = np.searchsorted(tokens.ends, start, side="right"), np.searchsorted(tokens.starts, end)
        weights[low:high] = weight
    return weights


def _flaw(document: Encoded) -> str:
    if len(document.token_ids) < 2:
        return "the conversation renders to fewer than 2 tokens"
    trained = document.weights is None or document.weights[1:].any()
    return "" if trained else "no token of the conversation is trained on"
