"""Modules and parameters of a built model are found by role and layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig
from xtuner_core_qwen3_moe.model import build

from xtuner_core.errors import ContractError, UnknownName
from xtuner_core.nn import iter_roles, parameter_role, select, set_role
from xtuner_core.roles import check_role


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.device("meta"):
        return build(Qwen3MoeConfig(mlp_only_layers=[2], tie_word_embeddings=True))


def test_every_role_of_the_model_is_a_known_one(model):
    roles = {item.role for item in iter_roles(model)} | {role for role, _ in parameter_role(model).values()}
    for role in roles:
        check_role(role)
    assert {"embed", "layer", "attn.qkv", "attn.core", "attn.out", "norm", "head"} <= roles
    assert {"mlp.up", "mlp.down", "moe.router", "moe.dispatch", "moe.experts"} <= roles


def test_every_parameter_has_a_role_and_those_in_layers_their_layer(model):
    roles = parameter_role(model)
    assert set(roles) == {name for name, _ in model.named_parameters()}
    assert roles["embed.weight"] == ("embed", None)
    assert roles["layers.3.feed_forward.experts.gate_up"] == ("moe.experts", 3)
    assert roles["layers.2.feed_forward.gate_up.weight"] == ("mlp.up", 2)
    assert roles["layers.1.attention.q_norm"] == ("norm", 1)
    assert roles["norm.weight"] == ("norm", None)


def test_a_selector_takes_a_role_and_what_lies_below_it(model):
    names = [item.name for item in select(model, "moe", layers={0})]
    assert names == [f"layers.0.feed_forward{leaf}" for leaf in ("", ".router", ".dispatcher", ".experts")]
    assert [item.layer for item in select(model, "mlp.up")] == [2]
    assert all(model.get_submodule(item.name) is item.module for item in select(model, "attn"))


def test_a_selector_that_matches_nothing_is_refused_with_the_nearest_role(model):
    with pytest.raises(UnknownName, match=r"moe\.expert'") as caught:
        select(model, "moe.expert")
    assert "moe.experts" in caught.value.fix


def test_layers_that_hold_no_such_module_are_refused_with_those_that_do(model):
    with pytest.raises(UnknownName, match="moe") as caught:
        select(model, "moe", layers={2, 7})
    assert "[0, 1, 3]" in caught.value.fix


def test_a_parameter_without_a_role_anywhere_around_it_is_refused():
    with pytest.raises(ContractError, match=r"'0\.weight'"):
        parameter_role(nn.Sequential(nn.Linear(2, 2), set_role(nn.Linear(2, 2), "head")))
