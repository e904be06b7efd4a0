"""Each check of the suite of models fails on a model that breaks what it is for. D model width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from xtuner_core.api import ModelProvider
from xtuner_core.contracts.batch import Document, pack
from xtuner_core.contracts.weights import WeightMap
from xtuner_core.errors import XTunerCoreError
from xtuner_core.nn.roles import set_role
from xtuner_core.parts import Parts
from xtuner_core.testing import ModelContract, compose_tiny, fake_plugin, tiny_host
from xtuner_core.testing.build import find_offer, model_config
from xtuner_core.testing.tiny import TinyConfig
from xtuner_core.testing.tiny_model import TinyModel

HERE = __name__


@dataclass(kw_only=True)
class WrongConfig(TinyConfig):
    """A tiny model with one thing wrong."""

    fault: str = ""
    """What is wrong."""

    def to_hf(self) -> dict[str, Any]:
        written = super().to_hf()
        return {**written, "num_layers": 7} if self.fault == "config.json" else written

    def parameter_count(self) -> Any:
        count = super().parameter_count()
        return replace(count, total=count.total + 1) if self.fault == "parameters" else count

    def flops(self, lengths: Any) -> int:
        whole_square = 3 * self.num_layers * self.num_heads * 8 * sum(length**2 for length in lengths)
        return super().flops(lengths) + (whole_square if self.fault == "flops" else 0)


class WrongModel(TinyModel):
    def __init__(self, config: WrongConfig) -> None:
        super().__init__(config)
        self.fault = config.fault
        if self.fault == "memory":
            self.table = torch.ones(3, device="cpu")
        if self.fault == "role":
            set_role(self.norm, "norme")
        if self.fault == "idle":
            self.idle = set_role(nn.Parameter(torch.empty(2)), "norm")

    def weight_map(self) -> WeightMap:
        found = super().weight_map()
        return WeightMap(found.entries[:-1]) if self.fault == "weight map" else found

    def forward(self, batch: Any, cache: Any = None) -> Any:
        if self.fault == "boundaries":
            batch = pack([Document.of(batch.token_ids)])
        if self.fault == "cache":
            cache = None
        output = super().forward(batch, cache)
        hidden_TD = output.predictions[0].hidden_TD
        if self.fault == "filler":
            hidden_TD = hidden_TD + hidden_TD.mean()
        if self.fault == "future":
            hidden_TD = hidden_TD + hidden_TD.roll(-1, 0)
        if self.fault == "chance":
            hidden_TD = hidden_TD + torch.rand(())
        if self.fault == "statistics":
            return replace(output, statistics={"seen": hidden_TD.sum()})
        return replace(output, predictions=(replace(output.predictions[0], hidden_TD=hidden_TD),))


def wrong_model(config: WrongConfig) -> WrongModel:
    return WrongModel(config)


MODELS = {
    "config.json": "test_the_configuration_survives_config_json",
    "parameters": "test_the_parameters_are_those_of_the_formula",
    "flops": "test_the_flops_are_three_times_a_counted_forward_less_half_of_attention",
    "memory": "test_building_on_meta_takes_no_memory",
    "role": "test_every_module_and_parameter_has_a_known_role",
    "weight map": "test_the_weight_map_covers_every_parameter_once",
    "idle": "test_every_trainable_parameter_gets_a_finite_gradient",
    "statistics": "test_a_forward_pass_returns_predictions_that_the_head_scores",
    "filler": "test_packing_and_splitting_change_neither_losses_nor_gradients",
    "boundaries": "test_a_document_is_predicted_as_if_it_were_alone",
    "future": "test_a_token_does_not_see_those_after_it",
    "chance": "test_the_same_step_gives_the_same_bits",
    "cache": "test_generation_with_the_cache_equals_recomputation",
}


class WrongModels(ModelContract):
    plugin, offer = "wrong", "wrong"


@pytest.fixture
def model_case() -> Callable[[str], dict[str, Any]]:
    """What a test of the suite takes, for a model with this fault."""
    reference = {"factory": f"{HERE}:wrong_model", "config": f"{HERE}:WrongConfig"}
    host = tiny_host(objects={"wrong": fake_plugin("wrong", ModelProvider(name="wrong", summary="-", **reference))})
    offered = find_offer(host, "model", "wrong")

    def make(fault: str) -> dict[str, Any]:
        config = model_config(host, "wrong", {"fault": fault})
        loss = Parts(compose_tiny(host=host).require(), host).make("loss")
        return {"host": host, "offered": offered, "config": config, "loss": loss}

    return make


@pytest.mark.parametrize("fault", MODELS)
def test_a_model_with_a_fault_fails_the_check_that_is_for_it(fault, model_case):
    test = getattr(WrongModels(), MODELS[fault])
    call(test, model_case(""))
    with pytest.raises((AssertionError, XTunerCoreError)):
        call(test, model_case(fault))


def call(test: Callable[..., None], case: dict[str, Any]) -> None:
    """Call a test of a suite with those of the case's arguments that it takes."""
    names = test.__code__.co_varnames[1 : test.__code__.co_argcount]
    test(**{name: case[name] for name in names})
