"""An algorithm's demonstration, for who brings nothing along, and its recipe, for who brings a model or data."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def folder(tmp_path):
    """A checkpoint's folder, as far as wiring looks into it."""
    from xtuner_core_qwen3_moe.config import Qwen3MoeConfig

    (tmp_path / "config.json").write_text(json.dumps(Qwen3MoeConfig().to_hf()))
    return tmp_path


def rate(plan):
    return plan.config["optimizer"]["learning_rate"]


def test_an_algorithm_alone_starts_from_its_demonstration(planned, chosen):
    assert chosen(overrides=["algorithm=sft"])["model"] == "qwen3_moe:tiny"
    assert rate(planned(overrides=["algorithm=sft"])) == 5e-3


@pytest.mark.parametrize("value", ["model.hidden_size=64", "algorithm.epochs=2"])
def test_values_of_what_the_demonstration_picks_bring_nothing_along(planned, value):
    assert rate(planned(overrides=["algorithm=sft", value])) == 5e-3


def test_who_brings_a_model_starts_from_the_recipe(planned, folder):
    plan = planned(overrides=["algorithm=sft", f"model={folder}"])
    assert rate(plan) == 2e-5
    assert plan.config["algorithm"]["tokens_per_step"] == 16384


def test_a_recipe_of_the_users_leaves_nothing_to_the_demonstration(planned):
    recipe = {"algorithm": "sft", "model": "qwen3_moe:tiny", "dataset": "kjv_questions"}
    assert rate(planned(recipe)) == 2e-5


@pytest.mark.parametrize("data", ["dataset=kjv", "dataset.mine=kjv", "dataset.mine.name=kjv"])
def test_who_brings_data_alone_is_asked_for_a_model(problem, data):
    assert problem(overrides=["algorithm=sft", data]).startswith("no model is chosen")


def test_a_bare_run_is_the_demonstration_and_who_brings_model_and_text_starts_from_the_recipe(planned, folder):
    bare, own = planned(), planned(overrides=[f"model={folder}", "dataset=mine.txt"])
    assert (rate(bare), bare.config["algorithm"]["steps"]) == (5e-3, 550)
    assert (rate(own), own.config["algorithm"]["steps"], own.config["algorithm"]["sample_prompts"]) == (3e-5, None, [])
    assert [pick.key for pick in own.picks if pick.slot == "dataset"] == ["dataset.mine"]
    named = planned(overrides=["algorithm=pretrain", f"model={folder}", "dataset=mine.txt"])
    assert named.config == own.config


@pytest.mark.parametrize("value", ["model.num_layers=2", "algorithm.steps=2"])
def test_values_of_a_bare_run_bring_nothing_along(planned, value):
    assert rate(planned(overrides=[value])) == 5e-3


def test_naming_a_models_plugin_brings_no_model_of_ones_own(planned):
    assert rate(planned(plugins=["llama"])) == 5e-3


def test_initial_weights_are_brought_along(planned, folder):
    assert rate(planned(overrides=[f"init={folder}", "dataset=mine.txt"])) == 3e-5


def test_a_users_recipe_leaves_nothing_to_the_laptops(planned):
    plan = planned({"algorithm": "pretrain", "model": "qwen3_moe:tiny", "dataset": "kjv"})
    assert (rate(plan), plan.config["schedule"]["final_fraction"]) == (3e-5, 0.1)


def test_an_algorithm_without_a_recipe_starts_from_the_default_one_or_from_that_of_its_algorithm(
    planned, install, folder
):
    install.offer("mimic", "algorithm", 'loss="cross_entropy"')
    assert rate(planned(plugins=["mimic"])) == 5e-3
    assert rate(planned(plugins=["mimic"], overrides=[f"model={folder}", "dataset=mine.txt"])) == 3e-5
