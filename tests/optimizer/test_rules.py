"""Rules on parameters by role and layer: what they come to, and which are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xtuner_core.config.layer_ranges import LayerRanges
from xtuner_core.config.root import ParameterRule
from xtuner_core.contracts.weights import Span
from xtuner_core.engine.masters import master_weights
from xtuner_core.engine.matrices import fused_matrices
from xtuner_core.engine.rules import Treatment, freeze, resolve
from xtuner_core.errors import ComposeError
from xtuner_core.nn.roles import set_role
from xtuner_core.testing import compose_tiny, tiny_host
from xtuner_core.testing.build import meta_model
from xtuner_core.testing.parallelism import FP64


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return meta_model(tiny_host(), "tiny", {"num_layers": 4})


def rules(*given: dict) -> list[ParameterRule]:
    return [ParameterRule(**each) for each in given]


def problems(model: nn.Module, *given: dict) -> list[str]:
    with pytest.raises(ComposeError) as caught:
        resolve(rules(*given), model)
    return [f"{problem.key}|{problem}" for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "layers"), [("8", {8}), ("0-3,8", {0, 1, 2, 3, 8}), ("7-", {7, 8, 9}), (" 1 , 3-3 ", {1, 3})]
)
def test_layers_are_numbers_and_ranges_with_both_ends(text, layers):
    assert {layer for layer in range(10) if layer in LayerRanges.parse(text)} == layers


@pytest.mark.parametrize("text", ["", "-1", "3-1", "0-3,", "a", "1.5", "0..3", "1-2-3"])
def test_layers_that_say_nothing_are_refused_when_composing(text):
    found = compose_tiny(
        {"parameters": [{"role": "embed", "frozen": True}, {"role": "attn", "layers": text, "frozen": True}]}
    )
    assert [str(p) for p in found.problems if "parameters[1]: layers" in str(p)]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({}, "sets nothing"),
        ({"frozen": True, "weight_decay": 0.1}, "neither learning rate nor weight decay"),
        ({"weight_decay": -0.1}, "must not be negative"),
        ({"learning_rate_factor": -1.0}, "must not be negative"),
    ],
)
def test_a_rule_that_can_mean_nothing_is_refused_when_composing(rule, said):
    (problem,) = compose_tiny({"parameters": [{"role": "embed", **rule}]}).problems
    assert problem.message.startswith("the run's own settings: parameters[0]: ")
    assert said in problem.message


def test_of_several_rules_each_settings_last_one_counts(model):
    found = resolve(
        rules(
            {"role": "attn", "learning_rate_factor": 0.5, "weight_decay": 0.2},
            {"role": "attn.qkv", "layers": "2-", "learning_rate_factor": 0.1},
            {"role": "attn", "layers": "3", "weight_decay": 0.0},
        ),
        model,
    )
    half, tenth = {"learning_rate_factor": 0.5, "group": "attn"}, {"learning_rate_factor": 0.1, "group": "attn.qkv.2-"}
    for layer in range(4):
        decay = {"weight_decay": 0.0 if layer == 3 else 0.2}
        at = f"layers.{layer}.attention"
        assert found[f"{at}.out.weight"] == Treatment(**half, **decay)
        assert found[f"{at}.qkv.weight"] == Treatment(**(tenth if layer > 1 else half), **decay)
    assert len(found) == 8


def test_a_later_rule_thaws_what_an_earlier_one_freezes():
    own = meta_model(tiny_host(), "tiny", {})
    treatments = resolve(rules({"role": "attn", "frozen": True}, {"role": "attn.out", "frozen": False}), own)
    freeze(own, treatments)
    frozen = {name for name, parameter in own.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"layers.{layer}.attention.qkv.weight" for layer in range(2)}


def test_a_rule_with_layers_leaves_what_is_outside_of_them_alone(model):
    found = resolve(rules({"role": "norm", "layers": "0-", "weight_decay": 0.1}), model)
    assert "norm.weight" not in found
    assert len(found) == 8


def test_the_role_layer_means_whole_layers(model):
    found = resolve(rules({"role": "layer", "layers": "0-1,3", "frozen": True}), model)
    assert set(found) == {
        name for name, _ in model.named_parameters() if name.startswith(("layers.0", "layers.1", "layers.3"))
    }
    assert {name.split(".")[0] for name in resolve(rules({"role": "layer", "frozen": True}), model)} == {"layers"}


def test_rules_that_match_nothing_are_refused_at_once_with_key_and_what_is_there(model):
    assert problems(
        model,
        {"role": "norm", "frozen": True},
        {"role": "attn.qvk", "frozen": True},
        {"role": "vision", "frozen": True},
        {"role": "attn", "layers": "4-", "frozen": True},
        {"role": "head", "layers": "0", "frozen": True},
    ) == [
        "parameters[1]|parameters[1]: no parameter of this model has the role 'attn.qvk'; write 'attn.qkv'",
        (
            "parameters[2]|parameters[2]: no parameter of this model has the role 'vision'; choose among attn.out, "
            "attn.qkv, embed, head, mlp.down, mlp.up, moe.experts, moe.router, norm"
        ),
        "parameters[3]|parameters[3]: no parameter of role 'attn' lies in the layers 4-; it is in the layers 0 to 3",
        (
            "parameters[4]|parameters[4]: no parameter of role 'head' lies in the layers 0; it is in no layer; "
            "leave layers out"
        ),
    ]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = set_role(nn.Embedding(3, 2), "embed")
        self.head = set_role(nn.Linear(2, 3, bias=False), "head")
        self.head.weight = self.embed.weight


def test_a_tied_parameter_follows_the_rules_of_each_of_its_roles():
    found = resolve(
        rules({"role": "head", "weight_decay": 0.5}, {"role": "embed", "learning_rate_factor": 2.0}), Tied()
    )
    assert found == {"embed.weight": Treatment(learning_rate_factor=2.0, weight_decay=0.5, group="embed")}
    assert resolve(rules({"role": "head", "frozen": True}, {"role": "embed", "frozen": True}), Tied())


def test_rules_that_set_a_tied_parameter_apart_are_refused():
    assert problems(Tied(), {"role": "head", "frozen": True}, {"role": "embed", "frozen": False}) == [
        (
            "parameters[1]|embed.weight and head.weight are one parameter, and the rules set its frozen apart: "
            "parameters[1] sets False for embed, parameters[0] sets True for head; give both the same, or leave one out"
        )
    ]


def test_an_optimizer_sees_what_the_rules_come_to_and_nothing_that_is_frozen():
    own = meta_model(tiny_host(), "tiny", {}, torch.float64)
    given = rules({"role": "attn", "learning_rate_factor": 0.5}, {"role": "moe", "frozen": True})
    treatments = resolve(given, own)
    freeze(own, treatments)
    seen = {item.name: item for item in master_weights(own, FP64, frozenset(), treatments).optimized}
    assert not [name for name, item in seen.items() if item.role.startswith("moe")]
    assert seen["layers.0.attention.out.weight"].learning_rate_factor == 0.5
    assert (seen["embed.weight"].learning_rate_factor, seen["embed.weight"].group) == (1.0, "")


def test_what_the_checkpoint_keeps_apart_is_several_matrices(model):
    found = fused_matrices(model)
    halves = ((Span(0, 24), Span(0, 16)), (Span(24, 48), Span(0, 16)))
    assert found == {
        "layers.0.feed_forward.gate_up.weight": halves,
        **{f"layers.{layer}.feed_forward.experts.gate_up": halves for layer in (1, 2, 3)},
    }


def test_queries_keys_and_values_of_qwen3_are_three_matrices():
    qwen = meta_model(tiny_host(["qwen3_moe"]), "qwen3_moe", {"num_layers": 1, "num_heads": 4, "num_kv_heads": 2})
    width = qwen.config.hidden_size
    head = qwen.config.head_dim
    spans = [(0, 4 * head), (4 * head, 6 * head), (6 * head, 8 * head)]
    expected = tuple((Span(*rows), Span(0, width)) for rows in spans)
    assert fused_matrices(qwen)["layers.0.attention.qkv.weight"] == expected
