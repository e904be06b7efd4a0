"""What a dataset is: records of a training and a held-out part, read in pieces by several processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Split = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record stands, so that a message can name it."""

    file: str
    """Path of the file, or the name of what is no file."""
    line: int | None = None
    """Line of a text file or row of a table, from 1."""

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRecord:
    """A plain text."""

    origin: Origin
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRecord:
    """A conversation in the form of OpenAI's chat messages, every key that the source had kept."""

    origin: Origin
    messages: Sequence[Mapping[str, Any]]
    """Each with `role`, and `content`, `reasoning_content`, `tool_calls` … as the source has them."""
    tools: Sequence[Mapping[str, Any]] = ()
    """JSON schemas of the functions that the assistant may call."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the chat template (`enable_thinking`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """Ids that were made elsewhere."""

    origin: Origin
    token_ids: Sequence[int]
    weights: Sequence[float] | None = None
    """Of each token as a target, 0 where it is only context; None trains on every one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRecord:
    """What cannot be read as a record. The run's settings say whether it is skipped and counted, or refused."""

    origin: Origin
    reason: str
    """A clause: `not JSON (Expecting ',' delimiter at column 17)`."""


Record = TextRecord | ChatRecord | TokenRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A piece of a corpus that one process reads on its own. Plain data: it travels to other processes."""

    index: int
    """Place in the corpus, from 0; records are in the order of their shards."""
    bytes: int
    """Size of what is read, roughly; for progress."""
    place: Mapping[str, Any] = field(default_factory=dict)
    """Whatever the corpus needs to find it again (file, first byte, last byte, first line)."""


class Corpus(Protocol):
    """A source of records in a fixed order. It is pickled to the processes that read its shards."""

    tokenizer: Path | None
    """Folder of a tokenizer that belongs to these texts; used where the run names none."""

    def fingerprint(self) -> str:
        """Identify everything that decides what is read: contents and settings; hexadecimal SHA-256."""

    def shards(self, split: Split) -> Sequence[Shard]:
        """Cut a part into pieces; none where the corpus has no such part.

        :raises DataError: a file is missing, empty or not of its kind.
        """

    def read(self, split: Split, shard: Shard) -> Iterator[Record | BrokenRecord]:
        """The records of a piece, in order. Each is in memory for as long as it is looked at.

        :raises DataError: the file as a whole can be read no further (a truncated archive).
        """


class CorpusFactory(Protocol):
    """What a dataset provider's `factory` names."""

    def __call__(self, config: Any, *, cache: Path) -> Corpus:
        """Open the dataset of `config`.

        :param cache: folder for what can be made again, shared by all runs; may not exist yet.
        """
