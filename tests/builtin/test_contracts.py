"""The built-in plugins keep their contracts: the suites of `xtuner_core.testing` over each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from xtuner_core.api import ParallelismProvider
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.dataset import Corpus
from xtuner_core.contracts.loss import TokenScores
from xtuner_core.discovery import CORE, discover
from xtuner_core.testing import (
    AlgorithmContract,
    DeviceContract,
    LossContract,
    ModelContract,
    ParallelismSmoke,
    PluginContract,
    fake_plugin,
    imaginary,
    tiny,
)
from xtuner_core.testing.tiny_chats import TinyChats
from xtuner_core.testing.tiny_texts import tiny_texts


class TestBuiltInPlugins(PluginContract):
    @pytest.fixture(params=discover().of_distribution(CORE), autouse=True)
    def _named(self, request: pytest.FixtureRequest) -> None:
        self.plugin = request.param


class TestCpu(DeviceContract):
    plugin = "cpu"
    configs = ({}, {"threads": 1})


class TestImaginary(DeviceContract):
    """The kit's own accelerator, passed as an object."""

    plugin, objects = "imaginary", {"imaginary": imaginary}
    precision = "bf16"


class TestCrossEntropy(LossContract):
    plugin = "cross_entropy"
    configs = ({}, {"reduction": "document"})

    def expected(self, config: Any, scores: TokenScores, batch: PackedBatch) -> Tensor:
        weights_T = batch.weights.double() * (batch.labels >= 0)
        parts = zip(scores.log_probs_T.split(batch.lengths), weights_T.split(batch.lengths), strict=True)
        if config.reduction == "token":
            return -(scores.log_probs_T * weights_T).sum() / weights_T.sum()
        means = [-(log_probs * weights).sum() / weights.sum() for log_probs, weights in parts if weights.any()]
        return torch.stack(means).mean()


class TestPretrain(AlgorithmContract):
    plugin = "pretrain"
    configs = (
        {"steps": 3, "tokens_per_step": 192, "micro_batch_tokens": 64, "document_tokens": 48},
        {
            "steps": 2,
            "tokens_per_step": 96,
            "micro_batch_tokens": 96,
            "document_tokens": 96,
            "sample_prompts": ["abra"],
        },
    )

    def size(self, config: Any) -> tuple[int, int]:
        return config.tokens_per_step // config.micro_batch_tokens, config.micro_batch_tokens


class TestSft(AlgorithmContract):
    plugin = "sft"
    configs = (
        {"steps": 3, "tokens_per_step": 192, "micro_batch_tokens": 96, "document_tokens": 80, "sample_tokens": 8},
        {"epochs": 0.05, "tokens_per_step": 256, "micro_batch_tokens": 256, "document_tokens": 99, "evaluate_every": 2},
    )

    def corpora(self) -> Mapping[str, Corpus]:
        return {"tiny_chats": TinyChats(), "tiny_texts": tiny_texts()}

    def size(self, config: Any) -> tuple[int, int]:
        return config.tokens_per_step // config.micro_batch_tokens, config.micro_batch_tokens


class TestTiny(ModelContract):
    """The kit's own model, passed as an object."""

    plugin, objects = "tiny", {"tiny": tiny}
    configs = ({}, {"num_layers": 1})


class Nothing:
    """A strategy that leaves a model as it is."""

    def __init__(self, config: None) -> None:
        pass

    def apply(self, model: Any, context: Any) -> Any:
        return model


NOTHING = ParallelismProvider(name="nothing", factory=f"{__name__}:Nothing", summary="does nothing")


class TestNothing(ParallelismSmoke):
    plugin = "nothing"
    objects: ClassVar[dict[str, object]] = {"nothing": fake_plugin("nothing", NOTHING)}
