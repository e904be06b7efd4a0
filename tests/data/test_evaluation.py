"""Held-out scores: every target once with its weight, by dataset; and the fixed choice where a budget is set.

T tokens of a pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, log
from pathlib import Path

import pytest
import torch

from xtuner_core.contracts.algorithm import Services
from xtuner_core.contracts.dataset import Origin, Shard, TextRecord, TokenRecord
from xtuner_core.contracts.loss import TokenScores
from xtuner_core.data.encoding.text import TextEncoder
from xtuner_core.data.evaluation import evaluate
from xtuner_core.data.held_out import choose_held_out
from xtuner_core.data.store import open_store
from xtuner_core.hf.tokenizer import load_tokenizer
from xtuner_core.testing.tiny_texts import TOKENIZER

TEXTS = ["In the beginning was the word. " * 5, "short", "und am Anfang war \u00fc. " * 3, ""]
TOKENS = [([5, 6, 7, 8, 9] * 12, [0, 0.5, 0, 1, 2] * 12), ([9, 9, 9], [0, 0, 3.0])]


@dataclass
class Records:
    """A corpus that has what it is given as its held-out part."""

    held_out: list
    tokenizer: Path | None = None

    def fingerprint(self):
        return str(self.held_out)

    def shards(self, split):
        return [Shard(index=0, bytes=1)] if split == "held_out" and self.held_out else []

    def read(self, split, shard):
        yield from self.held_out


@dataclass
class ById:
    """An engine to which a token is the less probable the higher its id."""

    scored: list = field(default_factory=list)

    def score(self, batch):
        self.scored.append(batch)
        return TokenScores(log_probs_T=torch.where(batch.labels >= 0, -0.1 * batch.labels.float(), float("inf")))

    def score_all(self, batches):
        return map(self.score, batches)


@pytest.fixture
def stores(tmp_path):
    """Texts and token ids as two datasets, and one that has no held-out part."""
    records = {
        "texts": [TextRecord(origin=Origin("texts", n), text=text) for n, text in enumerate(TEXTS)],
        "none": [],
        "ids": [TokenRecord(origin=Origin("ids", n), token_ids=i, weights=w) for n, (i, w) in enumerate(TOKENS)],
    }

    def open_them(*names):
        tokenizer = load_tokenizer(TOKENIZER)
        services = Services(
            engine=ById(),
            tokenizer=tokenizer,
            corpora={name: Records(records[name]) for name in names},
            seed=0,
            folder=tmp_path,
            cache=tmp_path / "cache",
            report=lambda event, values: None,
            stopping=lambda: None,
        )
        return open_store(services, TextEncoder(tokenizer), split="held_out")

    return open_them


def expected(documents: Mapping[str, list], names) -> tuple[float, float]:
    """Weighted sum and weights of the targets, without any window."""
    chosen = [document for name in names for document in documents[name]]
    pairs = [(int(i), w) for ids, weights in chosen for i, w in zip(ids, weights, strict=True)]
    return sum(0.1 * i * w for i, w in pairs), sum(w for _, w in pairs)


@pytest.fixture
def targets():
    """Ids and weights of the targets of every document."""
    end, encode = load_tokenizer(TOKENIZER).end_of_text, load_tokenizer(TOKENIZER).encode
    texts = [[*encode(text), end] for text in TEXTS]
    return {
        "texts": [(ids, [1.0] * len(ids)) for ids in texts],
        "ids": [(ids[1:], weights[1:]) for ids, weights in TOKENS],
    }


@pytest.mark.parametrize(("limit", "overlap"), [(8, 0.0), (16, 0.5), (24, 0.9), (64, 0.5), (512, 0.5)])
def test_losses_are_weighted_means_over_targets_whatever_the_windows(stores, targets, limit, overlap):
    held_out = choose_held_out(stores("texts", "none", "ids"), None)
    found = evaluate(ById(), held_out, capacity=512, limit=limit, overlap=overlap)
    means = {name: expected(targets, [name]) for name in ("texts", "ids")}
    nll, weight = expected(targets, ["texts", "ids"])
    assert found == pytest.approx(
        {
            "loss": nll / weight,
            "perplexity": exp(nll / weight),
            "bits_per_byte": means["texts"][0] / log(2) / sum(len(text.encode()) for text in TEXTS),
            "loss.texts": means["texts"][0] / means["texts"][1],
            "loss.ids": means["ids"][0] / means["ids"][1],
        },
        rel=1e-6,
    )


def test_one_dataset_has_no_loss_by_dataset_and_token_ids_no_bytes(stores):
    found = evaluate(ById(), choose_held_out(stores("ids"), None), capacity=64, limit=32, overlap=0.5)
    assert list(found) == ["loss", "perplexity"]


def test_a_window_repeats_the_end_of_the_one_before_and_never_another_document(stores):
    engine = ById()
    evaluate(engine, choose_held_out(stores("texts"), None), capacity=96, limit=32, overlap=0.5)
    decode = load_tokenizer(TOKENIZER).decode
    for batch in engine.scored:
        sizes = list(batch.lengths)
        for ids, labels in zip(batch.token_ids.split(sizes), batch.labels.split(sizes), strict=True):
            first = int((labels >= 0).nonzero()[0])
            assert first == 0 or first >= 16
            text = decode(ids.tolist()).strip("\ufffd")
            assert any(text in document for document in TEXTS)


def test_a_budget_takes_the_same_documents_each_time_and_some_of_every_dataset(stores):
    whole = choose_held_out(stores("texts", "ids"), None)
    some, again = (choose_held_out(stores("texts", "ids"), 100) for _ in range(2))
    assert (whole.documents, whole.available, some.available) == (6, 6, 6)
    chosen = [part.chosen_C.tolist() for part in some.parts]
    assert chosen == [part.chosen_C.tolist() for part in again.parts]
    assert all(len(part) > 0 for part in chosen)
    assert 0 < some.documents < 6
    assert choose_held_out(stores("texts", "ids"), 1).documents == 2


def test_no_held_out_part_is_no_document(stores):
    assert choose_held_out(stores("none"), None).documents == 0
