"""A configuration field that is itself a pick: one plugin composes another's offer without importing it."""

from __future__ import annotations

import pytest

from xtuner_core import Host
from xtuner_core.parts import Parts
from xtuner_core.testing import compose_tiny

TOWER = """
def build(config, *, nested):
    return {"width": config.width} | {name: make() for name, make in nested.items()}

@dataclass(frozen=True)
class Config:
    width: int = 8
    text: Any = pick("model", "words:small")

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"width must be above 0, not {self.width}")
"""
WORDS = """
def build(config):
    return {"depth": config.depth}

@dataclass
class Config:
    depth: int = 2
    heads: int = 4
"""
SMALL = 'Preset(name="small", values={"depth": 1})'
BIG = 'Preset(name="big", alias="words-big", values={"depth": 9})'


@pytest.fixture(autouse=True)
def tower_and_words(install):
    bundle = 'Preset(name="xl", values={"width": 64, "text": {"name": "words:big", "heads": 16}})'
    install.offer("tower", "model", f'config="stranger_tower.plugin:Config", presets=({bundle},)', source=TOWER)
    install.offer("words", "model", f'config="stranger_words.plugin:Config", presets=({SMALL}, {BIG})', source=WORDS)


def test_the_default_of_a_nested_pick_is_taken_and_its_plugin_activated(planned):
    plan = planned(overrides=["model=tower"])
    assert plan.config["model"] == {"width": 8, "text": {"depth": 1, "heads": 4}}
    assert (plan.pick("model.text").name, plan.pick("model.text").preset) == ("words", "small")
    assert plan.pick("model.text").plugin == "words"


def test_a_nested_pick_can_be_replaced_and_configured_in_either_order(planned):
    plan = planned(overrides=["model.text.heads=1", "model.text=words:big", "model=tower"])
    assert plan.config["model"]["text"] == {"depth": 9, "heads": 1}


def test_a_recipe_nests_them_as_it_is_read(planned):
    recipe = {"model": {"name": "tower", "text": {"name": "qwen3_moe:tiny", "num_layers": 3}}}
    plan = planned(recipe | {"algorithm": "pretrain", "dataset": "kjv"})
    assert plan.config["model"]["text"]["num_layers"] == 3
    assert plan.pick("model.text").plugin == "qwen3_moe"


def test_a_preset_may_pick_and_configure_what_is_nested(planned):
    plan = planned(overrides=["model=tower:xl"])
    assert plan.config["model"] == {"width": 64, "text": {"depth": 9, "heads": 16}}
    assert plan.origins["model.text.heads"] == "preset xl of tower"


def test_a_pick_replaces_what_a_preset_nested_whole(planned):
    plan = planned(overrides=["model=tower:xl", "model.text=words:small"])
    assert plan.config["model"]["text"] == {"depth": 1, "heads": 4}


def test_a_nested_pick_of_nothing_leaves_nothing(planned):
    plan = planned(overrides=["model=tower", "model.text=null"])
    assert plan.pick("model.text") is None
    assert plan.config["model"]["text"] is None


def test_values_of_a_nested_pick_of_nothing_are_refused(problem):
    message = problem(overrides=["model=tower", "model.text=null", "model.text.depth=3"])
    assert message == (
        "model.text.depth (command line) configures model.text, for which nothing is picked; write model.text=NAME"
    )


def test_a_nested_pick_that_nothing_offers_is_refused_with_its_key(problem):
    assert problem(overrides=["model=tower", "model.text=word"]).startswith(
        "model.text=word (command line): no installed plugin offers the model 'word'; did you mean 'words'?"
    )


def test_an_unknown_key_of_a_nested_section_names_its_owner(problem):
    assert problem(overrides=["model=tower", "model.text.dept=3"]) == (
        "there is no key model.text.dept (command line); the section model.text belongs to "
        "model 'words' of plugin 'words' (stranger-words 1.0); did you mean 'depth'?"
    )


def test_the_outer_section_is_still_validated(problem):
    assert problem(overrides=["model=tower", "model.width=0"]).startswith("model: width must be above 0, not 0")


def test_the_parts_get_the_nested_dataclass(planned):
    host = Host()
    plan = planned(overrides=["model=tower", "model.text.depth=5"], host=host)
    config = Parts(plan, host).config("model")
    assert type(config).__name__ == "Config"
    assert (config.width, config.text.depth) == (8, 5)


@pytest.mark.parametrize(
    ("override", "text"), [("model.text.depth=5", {"text": {"depth": 5}}), ("model.text=null", {})]
)
def test_the_outer_factory_makes_what_was_nested_without_importing_it(planned, override, text):
    host = Host()
    plan = planned(overrides=["model=tower", override], host=host)
    assert Parts(plan, host).make("model") == {"width": 8} | text


def test_a_dispatcher_that_is_picked_for_the_run_is_the_one_of_a_strategy_that_names_none():
    spread = {"parallelism": {"expert_parallel": {}}, "dispatcher": "naive"}
    key = "parallelism.expert_parallel.dispatcher"
    assert compose_tiny(spread).require().pick(key).name == "naive"
    spread["parallelism"]["expert_parallel"]["dispatcher"] = "all_to_all"
    assert compose_tiny(spread).require().pick(key).name == "all_to_all"
    assert compose_tiny({"parallelism": {"expert_parallel": {}}}).require().pick(key).name == "all_to_all"
