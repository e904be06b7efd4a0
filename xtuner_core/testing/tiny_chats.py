"""The dataset `tiny_chats`: a word is said, and answered with the one that follows it in a spell."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from xtuner_core.contracts.dataset import ChatRecord, Origin, Shard, Split
from xtuner_core.testing.tiny_texts import TOKENIZER, WORDS

ANSWERS = dict(zip(WORDS[::2], WORDS[1::2], strict=True))
"""What is said, and what is answered."""
CONVERSATIONS = {"train": 60, "held_out": 6}


class TinyChats:
    """Conversations of one to three turns, some with a system message, always the same."""

    tokenizer: Path | None = TOKENIZER

    def fingerprint(self) -> str:
        """There is one such dataset."""
        return "tiny_chats"

    def shards(self, split: Split) -> Sequence[Shard]:
        """One piece."""
        return [Shard(index=0, bytes=1000)]

    def read(self, split: Split, shard: Shard) -> Iterator[ChatRecord]:
        """Yield the conversations of a part."""
        del shard
        for number, messages in enumerate(tiny_chats(split), start=1):
            yield ChatRecord(origin=Origin(f"tiny_chats {split}", number), messages=messages)


def tiny_chats(split: Split) -> Iterator[list[dict[str, str]]]:
    """Yield the messages of each conversation of a part."""
    draw = random.Random(split)
    for _ in range(CONVERSATIONS[split]):
        messages = [{"role": "system", "content": "Spell."}] if draw.random() < 0.3 else []
        for word in draw.choices(list(ANSWERS), k=draw.randint(1, 3)):
            messages += [{"role": "user", "content": word}, {"role": "assistant", "content": ANSWERS[word]}]
        yield messages
