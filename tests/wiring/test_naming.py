"""Naming is choosing: a plugin named in `--plugins` fills the slots of which it has one offer."""

from __future__ import annotations

import pytest

from xtuner_core import Host
from xtuner_core.errors import UnknownName


def test_a_run_without_anything_is_the_default_recipe(chosen):
    assert chosen() == {
        "algorithm": "pretrain",
        "device": "cpu",
        "model": "qwen3_moe:tiny",
        "loss": "cross_entropy",
        "precision": "fp32",
        "optimizer": "adamw",
        "schedule": "cosine",
        "dataset.kjv": "kjv",
        "observer.console": "console",
        "observer.jsonl": "jsonl",
        "observer.tensorboard": "tensorboard",
    }


@pytest.mark.parametrize("plugin", ["qwen3_moe", "pretrain", "adamw", "cpu"])
def test_naming_what_the_default_recipe_picks_anyway_keeps_the_recipes_values(planned, plugin):
    assert planned(plugins=[plugin]).config == planned().config


def test_naming_an_algorithm_keeps_the_values_of_the_recipe_that_it_ships(planned, strangers):
    assert planned(plugins=["parrot"]).config["algorithm"]["steps"] == 2


def test_a_strangers_model_replaces_the_default_recipes_and_starts_from_its_preset_tiny(chosen, planned, strangers):
    assert chosen(plugins=["bigram"]) == chosen() | {"model": "bigram:tiny"}
    plan = planned(plugins=["bigram"])
    assert plan.config["model"] == {"vocab_size": 8192, "width": 32, "inner": 48, "num_layers": 2}
    assert "qwen3_moe" not in {plugin.name for plugin in plan.plugins}


def test_a_model_without_a_preset_tiny_starts_from_its_defaults(chosen, install):
    install.offer("colossus", "model", 'presets=(Preset(name="huge", values={}),)')
    assert chosen(plugins=["colossus"])["model"] == "colossus"


def test_the_default_recipes_values_go_with_the_pick_that_they_belonged_to(planned, install):
    source = "@dataclass\nclass Config:\n    rate: float = 0.5\n"
    install.offer("sgd", "optimizer", 'config="stranger_sgd.plugin:Config"', source=source)
    assert planned(plugins=["sgd"]).config["optimizer"] == {"rate": 0.5}


@pytest.mark.parametrize(
    ("plugin", "key", "name"),
    [("focal", "loss", "focal"), ("abacus", "device", "abacus"), ("muon", "optimizer", "muon")],
)
def test_a_plugin_fills_every_single_choice_slot_that_it_offers(chosen, strangers, plugin, key, name):
    assert chosen(plugins=[plugin])[key] == name


def test_naming_an_algorithm_starts_from_the_recipe_that_it_ships(chosen, strangers):
    picks = chosen(plugins=["parrot"])
    assert picks["algorithm"] == "parrot"
    assert picks["schedule"] == "constant"
    assert not any(key.startswith("observer") for key in picks)


def test_of_several_offers_the_one_that_bears_the_plugins_name_is_meant(chosen, install):
    text = """
from xtuner_core.api import *
@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="three losses")
@hookimpl
def xtuner_losses():
    return [LossProvider(name=name, factory="math:floor", summary="-") for name in ("hinge", "huber", "square")]
"""
    install("huber", text)
    assert chosen(plugins=["huber"])["loss"] == "huber"


def test_of_several_offers_without_its_name_none_is_meant_and_the_refusal_lists_them(problem, install):
    text = """
from xtuner_core.api import *
@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="two losses")
@hookimpl
def xtuner_losses():
    return [LossProvider(name=name, factory="math:floor", summary="-") for name in ("hinge", "square")]
"""
    install("losses", text)
    assert problem(plugins=["losses"]) == (
        "plugin 'losses' is named, but this run takes nothing from it; "
        "write loss=hinge or loss=square, or leave it out of --plugins"
    )


def test_an_explicit_pick_on_the_command_line_wins_over_naming(chosen, strangers):
    assert chosen(plugins=["bigram"], overrides=["model=bigram:wide"])["model"] == "bigram:wide"


def test_a_pick_in_the_users_recipe_wins_over_naming(problem, strangers):
    recipe = {"model": "qwen3_moe:tiny", "algorithm": "pretrain", "dataset": "kjv"}
    assert problem(recipe, plugins=["bigram"]) == (
        "plugin 'bigram' is named, but this run takes nothing from it; write model=bigram, or leave it out of --plugins"
    )


def test_naming_fills_a_slot_that_the_users_recipe_configures_without_picking(planned, strangers):
    recipe = {"model": {"width": 40}, "algorithm": "pretrain", "dataset": "kjv"}
    plan = planned(recipe, plugins=["bigram"])
    assert (plan.pick("model").name, plan.config["model"]["width"]) == ("bigram", 40)


def test_two_named_plugins_for_one_slot_are_refused_with_what_to_write(problem, strangers):
    assert problem(plugins=["bigram", "qwen3_moe"]) == (
        "the named plugins 'bigram' and 'qwen3_moe' both offer a model; write model=bigram or model=qwen3_moe"
    )


def test_the_way_out_of_two_named_plugins_for_one_slot_still_refuses_the_one_that_ends_unused(problem, strangers):
    message = problem(plugins=["bigram", "qwen3_moe"], overrides=["model=bigram"])
    assert message.startswith("plugin 'qwen3_moe' is named, but this run takes nothing from it")


def test_a_strategy_is_one_of_several_so_naming_its_plugin_says_what_to_write(problem, chosen, strangers):
    assert "write parallelism=rewind" in problem(plugins=["rewind"])
    assert chosen(plugins=["rewind"], overrides=["parallelism=rewind"])["parallelism.rewind"] == "rewind"


def test_a_plugin_that_watches_the_wiring_is_not_unused(chosen, install):
    install("nanny", _with("@hookimpl\ndef xtuner_check(plan, facts):\n    return []\n"))
    assert chosen(plugins=["nanny"]) == chosen()


def test_a_plugin_without_any_hook_of_use_ends_unused(problem, install):
    install("idle", _with(""))
    assert problem(plugins=["idle"]) == (
        "plugin 'idle' is named, but this run takes nothing from it; leave it out of --plugins"
    )


def test_a_plugin_that_a_used_one_requires_is_not_unused(chosen, install):
    install("helper", _with(""))
    text = """
from xtuner_core.api import *
@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="a loss", requires_plugins=("helper",))
@hookimpl
def xtuner_losses():
    return [LossProvider(name="needy", factory="math:floor", summary="-")]
"""
    install("needy", text)
    assert chosen(plugins=["needy", "helper"])["loss"] == "needy"


def test_an_unknown_plugin_is_refused_with_the_nearest_name(problem):
    assert problem(plugins=["qwen3moe"]) == "no plugin 'qwen3moe' is installed; write 'qwen3_moe'"


def test_an_unknown_plugin_like_no_other_is_refused_with_where_it_may_be_had(problem):
    assert problem(plugins=["zamboni"]) == (
        "no plugin 'zamboni' is installed; pip install xtuner-core-zamboni, if it exists"
    )


def test_several_unknown_plugins_are_told_at_once(refused):
    messages = [item.message for item in refused(plugins=["zamboni", "qwen3moe"]).problems]
    assert messages == ["no plugin 'zamboni' is installed", "no plugin 'qwen3moe' is installed"]


def test_a_plugin_passed_as_an_object_is_chosen_by_its_name(chosen):
    from xtuner_core.api import LossProvider, PluginInfo, hookimpl

    class Plugin:
        @hookimpl
        def xtuner_plugin(self):
            return PluginInfo(contract="1.0", summary="an object")

        @hookimpl
        def xtuner_losses(self):
            return [LossProvider(name="mine", factory="math:floor", summary="a platform's own")]

    host = Host(objects={"mine": Plugin()})
    assert chosen(plugins=["mine"], host=host)["loss"] == "mine"
    with pytest.raises(UnknownName, match="no plugin 'mine'"):
        Host(["mine"])


def _with(source: str) -> str:
    header = "from xtuner_core.api import *\n@hookimpl\ndef xtuner_plugin():\n"
    return f'{header}    return PluginInfo(contract="1.0", summary="made for a test")\n{source}'
