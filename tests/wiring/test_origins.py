"""Every value of a plan says where it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping

RECIPE = """\
model:
  name: qwen3_moe:tiny
  num_layers: 2
algorithm: pretrain
dataset: kjv
optimizer:
  name: adamw
  learning_rate: 0.001
"""
PATCHING = """
from xtuner_core.api import *
@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="made for a test")
@hookimpl
def xtuner_configure(config):
    return [Patch("optimizer.weight_decay", config["seed"] / 100, "it likes the seed"), Patch("seed", 1, "it likes 1")]
"""


def test_each_source_of_a_value_is_told_apart(planned, install, tmp_path):
    install("tuner", PATCHING)
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    plan = planned(file, plugins=["tuner"], overrides=["seed=5", "model.top_k=1"])
    assert {key: plan.origins[key] for key in _KEYS} == {
        "model": f"{file}:2",
        "model.num_layers": f"{file}:3",
        "model.hidden_size": "preset tiny of qwen3_moe",
        "model.rms_norm_eps": "default",
        "model.top_k": "command line",
        "optimizer.learning_rate": f"{file}:8",
        "optimizer.weight_decay": "patch of plugin 'tuner': it likes the seed",
        "loss": "default",
        "dataset.kjv": f"{file}:5",
        "seed": "command line",
        "output": "default",
    }


def test_what_the_algorithms_recipe_fills_in_is_told_with_its_line(planned, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    origins = planned(file).origins
    assert re.fullmatch(r"recipe pretrain:\d+", origins["schedule"])
    assert re.fullmatch(r"recipe pretrain:\d+", origins["schedule.warmup_fraction"])


_KEYS = (
    "model",
    "model.num_layers",
    "model.hidden_size",
    "model.rms_norm_eps",
    "model.top_k",
    "optimizer.learning_rate",
    "optimizer.weight_decay",
    "loss",
    "dataset.kjv",
    "seed",
    "output",
)


def test_a_patch_counts_more_than_the_recipe_and_less_than_the_command_line(planned, install, tmp_path):
    install("tuner", PATCHING)
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE + "  weight_decay: 0.5\n")
    plan = planned(file, plugins=["tuner"], overrides=["seed=5"])
    assert (plan.config["optimizer"]["weight_decay"], plan.config["seed"]) == (0.05, 5)
    patch = next(patch for patch in plan.patches if patch.path == "optimizer.weight_decay")
    assert (patch.value, patch.plugin, patch.reason) == (0.05, "tuner", "it likes the seed")


def test_what_a_name_chose_says_which_plugin_was_named(planned, strangers):
    plan = planned(plugins=["bigram"])
    assert plan.origins["model"] == "--plugins bigram"
    assert plan.origins["model.width"] == "preset tiny of bigram"


def test_values_of_a_caller_are_told_from_those_of_a_recipe(planned):
    recipe = {"model": "qwen3_moe:tiny", "algorithm": "pretrain", "dataset": "kjv", "seed": 3}
    plan = planned(recipe, overrides={"optimizer": {"learning_rate": 0.1}})
    assert (plan.origins["seed"], plan.origins["optimizer.learning_rate"]) == ("recipe", "call")


def test_every_leaf_and_every_pick_has_an_origin(planned):
    plan = planned()
    keys = {key.removeprefix("config.") for key in plan.leaves() if key.startswith("config.")}
    empty = {key for key in keys if _leaf(plan.config, key) == {}}
    assert keys - empty <= plan.origins.keys()
    assert {pick.key for pick in plan.picks} <= plan.origins.keys()
    assert all(plan.origins.values())


def _leaf(config: Mapping[str, object], key: str) -> object:
    value: object = config
    for part in key.split("."):
        assert isinstance(value, Mapping)
        value = value[part]
    return value
