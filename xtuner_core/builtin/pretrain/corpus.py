"""The run's texts as pieces to train on and windows to score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from xtuner_core.builtin.pretrain.config import PretrainConfig
from xtuner_core.contracts.batch import Document
from xtuner_core.contracts.dataset import Corpus, Split, TextRecord
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.data.tokenise import count_split, cut, tokenise, windows
from xtuner_core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingText:
    """What is trained on."""

    pieces: Sequence[Document]
    documents: int
    split: int
    """Documents that were cut into more than one piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutText:
    """What is scored."""

    windows: Sequence[Document]
    documents: int
    bytes: int
    """In UTF-8."""


def read_texts(corpora: Mapping[str, Corpus], split: Split) -> list[str]:
    """Read all documents of a part, dataset by dataset."""
    records = [
        record for corpus in corpora.values() for shard in corpus.shards(split) for record in corpus.read(split, shard)
    ]
    return [record.text for record in records if isinstance(record, TextRecord)]


def training_text(texts: Sequence[str], tokenizer: Tokenizer, config: PretrainConfig) -> TrainingText:
    """Tokenise and cut.

    :raises DataError: there is no text.
    """
    if not texts:
        raise DataError("the datasets of this run hold no training text", fix="choose a dataset that does")
    tokenised: list[Tensor] = list(tokenise(texts, tokenizer))
    return TrainingText(
        pieces=[piece for ids in tokenised for piece in cut(ids, config.document_tokens)],
        documents=len(tokenised),
        split=count_split([len(ids) for ids in tokenised], config.document_tokens),
    )


def held_out_text(texts: Sequence[str], tokenizer: Tokenizer, config: PretrainConfig) -> HeldOutText:
    """Tokenise, and cut into overlapping windows."""
    limit = config.document_tokens
    overlap = min(int(limit * config.evaluate_overlap), limit - 1)
    tokenised = tokenise(texts, tokenizer)
    return HeldOutText(
        windows=[window for ids in tokenised for window in windows(ids, limit, overlap)],
        documents=len(texts),
        bytes=sum(len(text.encode()) for text in texts),
    )
