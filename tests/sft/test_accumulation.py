"""Micro-batches of which some train on much and some on little give the gradient of the whole. T tokens of a pack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from xtuner_core.builtin.cross_entropy.loss import TokenMean
from xtuner_core.builtin.sft.algorithm import build
from xtuner_core.builtin.sft.config import SftConfig
from xtuner_core.config.root import DataConfig
from xtuner_core.contracts.algorithm import Services
from xtuner_core.contracts.batch import Document, pack
from xtuner_core.data.memory import TextCorpus
from xtuner_core.hf.tokenizer import load_tokenizer
from xtuner_core.testing import FakeEngine, tiny_host
from xtuner_core.testing.build import build_model
from xtuner_core.testing.steps import differentiate, distances
from xtuner_core.testing.tiny_chats import TinyChats
from xtuner_core.testing.tiny_texts import TOKENIZER


@pytest.fixture
def batches(tmp_path):
    """A step of four micro-batches of conversations, of which a part is trained on, and texts, all of which is."""
    tokenizer = load_tokenizer(TOKENIZER)
    services = Services(
        engine=FakeEngine(tokenizer.size),
        tokenizer=tokenizer,
        corpora={"chats": TinyChats(), "texts": TextCorpus("texts", ["hocus pocus " * 6] * 3)},
        seed=0,
        folder=tmp_path,
        data=DataConfig(workers=0),
        cache=tmp_path / "cache",
        report=lambda event, values: None,
        stopping=lambda: None,
    )
    config = SftConfig(steps=1, tokens_per_step=384, micro_batch_tokens=96, document_tokens=96, evaluate_first=False)
    (step,) = build(config, services).batches()
    return step


def documents(batch):
    """The documents of a pack, without its filler."""
    parts = [getattr(batch, name).split(batch.lengths) for name in ("token_ids", "labels", "weights")]
    each = [Document(token_ids=i, labels=l, weights=w) for i, l, w in zip(*parts, strict=True)]  # noqa: E741
    return each[: batch.documents]


def test_any_split_gives_the_gradient_of_one_pack_and_a_mean_of_means_does_not(batches):
    weights = [float(batch.weights.sum()) for batch in batches]
    assert max(weights) > 1.5 * min(weights), "the masks are meant to be unequal"
    model = build_model(tiny_host(), "tiny", {}, torch.float64, spread=0.2)
    whole = differentiate(model, TokenMean(), [pack([d for batch in batches for d in documents(batch)])])
    split = differentiate(model, TokenMean(), [replace(batch, fields={}) for batch in batches])
    assert max(distances(split, whole).values()) < 1e-12
    each = [differentiate(model, TokenMean(), [batch]) for batch in batches]
    mean = sum(part.losses["main"] for part in each) / len(each)
    assert abs(mean - whole.losses["main"]) > 1e-3
