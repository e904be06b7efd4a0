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
