"""Picks and values: told apart before they are merged, in whatever order and layer they stand."""

from __future__ import annotations

from itertools import permutations

import pytest

FULL = {"algorithm": "pretrain", "dataset": "kjv"}


def test_a_preset_and_an_override_of_it_may_stand_in_either_order_on_the_command_line(planned):
    for overrides in permutations(["model=qwen3_moe:30b-a3b", "model.num_layers=8"]):
        plan = planned(overrides=overrides)
        assert plan.pick("model").preset == "30b-a3b"
        assert (plan.config["model"]["num_layers"], plan.config["model"]["hidden_size"]) == (8, 2048)


@pytest.mark.parametrize(
    "text",
    [
        "model:\n  name: qwen3_moe:30b-a3b\n  num_layers: 8\n",
        "model:\n  num_layers: 8\n  name: qwen3_moe:30b-a3b\n",
    ],
)
def test_a_preset_and_an_override_of_it_may_stand_in_either_order_in_a_recipe(planned, tmp_path, text):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text + "algorithm: pretrain\ndataset: kjv\n")
    plan = planned(recipe)
    assert (plan.config["model"]["num_layers"], plan.config["model"]["hidden_size"]) == (8, 2048)


def test_the_reserved_name_is_no_value(planned):
    assert "name" not in planned(overrides=["optimizer.name=adamw"]).config["optimizer"]


def test_an_alias_stands_for_provider_and_preset_once_its_plugin_is_active(planned):
    plan = planned(plugins=["qwen3_moe"], overrides=["model=qwen3-30b-a3b"])
    assert (plan.pick("model").name, plan.pick("model").preset) == ("qwen3_moe", "30b-a3b")


def test_an_alias_of_an_inactive_plugin_is_refused_with_how_to_reach_it(problem):
    message = problem(overrides=["model=qwen3-30b-a3b"])
    assert message.startswith("model=qwen3-30b-a3b (command line): no installed plugin offers the model")
    assert "--plugins llama|qwen3_moe" in message


def test_provider_and_preset_reach_an_inactive_plugin(chosen):
    assert chosen(overrides=["model=qwen3_moe:235b-a22b"])["model"] == "qwen3_moe:235b-a22b"


def test_an_unknown_preset_is_refused_with_the_nearest(problem):
    message = problem(overrides=["model=qwen3_moe:30b-a3"])
    assert "has no preset '30b-a3'" in message
    assert message.endswith("write qwen3_moe:30b-a3b")


def test_a_pick_in_a_stronger_layer_replaces_the_weaker_whole_its_values_included(planned):
    recipe = FULL | {"model": {"name": "qwen3_moe:tiny", "num_layers": 2}}
    plan = planned(recipe, overrides=["model=qwen3_moe:30b-a3b"])
    assert plan.config["model"]["num_layers"] == 48


def test_the_same_pick_in_a_stronger_layer_keeps_the_values_beside_the_weaker(planned):
    recipe = FULL | {"model": {"name": "qwen3_moe:tiny", "num_layers": 2}}
    assert planned(recipe, overrides=["model=qwen3_moe:tiny"]).config["model"]["num_layers"] == 2


def test_values_beside_no_pick_configure_whatever_is_picked_in_a_stronger_layer(planned):
    recipe = FULL | {"model": {"num_layers": 2}}
    plan = planned(recipe, overrides=["model=qwen3_moe:30b-a3b"])
    assert (plan.config["model"]["num_layers"], plan.config["model"]["hidden_size"]) == (2, 2048)


def test_a_users_recipe_takes_what_it_leaves_open_from_the_recipe_of_its_algorithm(planned):
    plan = planned(FULL | {"model": "qwen3_moe:tiny", "algorithm": {"name": "pretrain", "steps": 5}})
    assert plan.config["optimizer"] == planned("pretrain", overrides=["model=qwen3_moe:tiny"]).config["optimizer"]
    assert (plan.config["algorithm"]["steps"], plan.config["algorithm"]["compare_xz"]) == (5, False)


def test_a_slot_that_no_run_can_do_without_is_asked_for_with_what_is_installed(problem):
    assert problem(overrides=["model=null"]) == "no model is chosen; write model=llama|qwen3_moe"


@pytest.mark.parametrize("value", ["[qwen3_moe]", "3", "true"])
def test_a_pick_that_is_no_name_is_refused(problem, value):
    assert problem(overrides=[f"model={value}"]).endswith("is no name of a model; write model=NAME")


# ── slots that take several ────────────────────────────────────────────────────────────────────────────────────────


def test_a_scalar_is_short_for_one_entry_and_replaces_weaker_ones(chosen):
    picks = chosen(overrides=["observer=jsonl"])
    assert [key for key in picks if key.startswith("observer")] == ["observer.jsonl"]


def test_a_scalar_replaces_a_weaker_scalar(chosen, install):
    install.offer("psalms", "dataset")
    picks = chosen(overrides=["model=qwen3_moe:tiny", "dataset=psalms"])
    assert [key for key in picks if key.startswith("dataset")] == ["dataset.psalms"]


def test_an_entry_joins_weaker_ones(chosen, install):
    install.offer("psalms", "dataset")
    picks = chosen("pretrain_demo", overrides=["dataset.psalms={}"])
    assert [key for key in picks if key.startswith("dataset")] == ["dataset.kjv", "dataset.psalms"]


def test_null_takes_one_entry_out(chosen):
    assert "observer.jsonl" not in chosen(overrides=["observer.jsonl=null"])
    assert "observer.console" in chosen(overrides=["observer.jsonl=null"])


def test_null_takes_out_the_entry_that_a_scalar_stood_for(chosen, install):
    install.offer("psalms", "dataset")
    picks = chosen("pretrain_demo", overrides=["dataset.kjv=null", "dataset.psalms={}"])
    assert [key for key in picks if key.startswith("dataset")] == ["dataset.psalms"]


def test_null_takes_every_entry_out(chosen):
    assert not any(key.startswith("observer") for key in chosen(overrides=["observer=null"]))


def test_two_entries_of_one_provider_have_names_of_their_own(planned):
    recipe = FULL | {
        "model": "qwen3_moe:tiny",
        "observer": {"near": {"name": "console", "every": 1}, "far": {"name": "console", "every": 50}},
    }
    plan = planned(recipe)
    assert [(pick.key, pick.name) for pick in plan.picked("observer")][-2:] == [
        ("observer.near", "console"),
        ("observer.far", "console"),
    ]
    assert plan.config["observer"]["far"] != plan.config["observer"]["near"]


def test_an_empty_mapping_of_entries_picks_nothing_and_hurts_nothing(chosen):
    assert chosen(overrides=["parallelism={}"]) == chosen()


def test_a_list_of_entries_is_refused_with_how_to_write_them(problem):
    assert problem(overrides=["observer=[console, jsonl]"]) == (
        "observer = ['console', 'jsonl'] (command line) names no observer; write observer.NAME=NAME for each"
    )


# ── strategies ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_strategies_on_one_dimension_are_refused_with_both(problem, install):
    install.offer("north", "parallelism", 'dimensions=(Dimension(name="dense.shard", size="shard"),)')
    install.offer("south", "parallelism", 'dimensions=(Dimension(name="dense.shard", size="shard"),)')
    assert problem(overrides=["parallelism.north={}", "parallelism.south={}"]) == (
        "parallelism.north (parallelism 'north' of plugin 'north' (stranger-north 1.0)) and "
        "parallelism.south (parallelism 'south' of plugin 'south' (stranger-south 1.0)) "
        "both own the dimension dense.shard; take out parallelism.south"
    )


def test_stages_that_wait_for_each_other_are_refused(problem, install):
    install.offer("north", "parallelism", 'stage="north", after=("south",)')
    install.offer("south", "parallelism", 'stage="south", after=("north",)')
    message = problem(overrides=["parallelism.north={}", "parallelism.south={}"])
    assert "the stages of parallelism.north, parallelism.south wait for each other" in message


def test_a_component_that_depends_on_the_split_is_noted_in_the_plan(planned, install):
    install.offer("mixer", "loss", 'depends_on_split="it compares micro-batches"')
    note = "loss 'mixer' of plugin 'mixer' (stranger-mixer 1.0): it compares micro-batches"
    assert planned(plugins=["mixer"]).notes == (note,)


def test_a_setting_that_makes_a_component_depend_on_the_split_is_noted_where_it_is_chosen(planned):
    assert planned().notes == ()
    (note,) = planned(overrides=["model.balance_scope=micro_batch"]).notes
    assert note.endswith("balance_scope=micro_batch: the load-balancing loss takes its means over each micro-batch")


def test_a_stage_of_its_own_that_nothing_places_is_refused(problem, install):
    install.offer("north", "parallelism", 'stage="north"')
    message = problem(overrides=["parallelism.north={}"])
    assert "has the stage 'north' of its own, and says neither before nor after what" in message


def test_a_stage_beside_one_that_is_not_there_is_refused(problem, install):
    install.offer("north", "parallelism", 'stage="north", after=("shardng",)')
    message = problem(overrides=["parallelism.north={}"])
    assert "wants its place beside the stage 'shardng', which is not in this run" in message


def test_overrides_may_be_a_mapping_with_nested_or_dotted_keys(planned):
    nested = planned(overrides={"optimizer": {"learning_rate": 0.1}})
    assert planned(overrides={"optimizer.learning_rate": 0.1}).digest == nested.digest
    assert nested.config["optimizer"]["learning_rate"] == 0.1


def test_no_overrides_may_be_written_as_an_empty_mapping(chosen):
    assert chosen(overrides={}) == chosen()
