"""Bad configuration: a sentence that names the cause and its owner, all problems at once, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xtuner_core import compose
from xtuner_core.errors import ComposeError, ConfigError

QWEN = "model 'qwen3_moe' of plugin 'qwen3_moe' (xtuner-core-qwen3-moe 0.1.0)"
MODEL = "model=qwen3_moe:tiny"
"""A run on data of one's own is asked for a model."""
ADAMW = "optimizer 'adamw' of plugin 'adamw' (xtuner-core 0.1.0)"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param(
            "model.num_layer=4",
            "there is no key model.num_layer (command line); the section model belongs to "
            f"{QWEN}; did you mean 'num_layers'?",
            id="unknown key",
        ),
        pytest.param(
            "model.num_layers.first=4",
            "there is no key model.num_layers.first (command line); the section model belongs to "
            f"{QWEN}; model.num_layers holds one value",
            id="key below a value",
        ),
        pytest.param(
            "sed=1",
            "there is no key sed (command line); the section at the root belongs to xtuner-core; did you mean 'seed'?",
            id="unknown key at the root",
        ),
        pytest.param(
            "engine.clip=1",
            "there is no key engine.clip (command line); the section at the root belongs to xtuner-core; "
            "did you mean 'clip_norm'?",
            id="unknown key of the core",
        ),
        pytest.param(
            "optimizer.learning_rate=fast",
            "optimizer.learning_rate = 'fast' (command line): Value 'fast' of type 'str' could not be converted to "
            f"Float; the section optimizer belongs to {ADAMW}",
            id="wrong type",
        ),
        pytest.param(
            "seed=[1]",
            "seed = [1] (command line): Value '[1]' of type 'list' could not be converted to Integer; "
            "the section at the root belongs to xtuner-core",
            id="wrong type at the root",
        ),
        pytest.param(
            "observer.console.format=xml",
            "observer.console.format = 'xml' (command line): Invalid value 'xml', "
            "expected one of ['auto', 'text', 'json']; "
            "the section observer.console belongs to observer 'console' of plugin 'console' (xtuner-core 0.1.0)",
            id="none of the values",
        ),
        pytest.param(
            "plugins.qwen3_moe.cache=1",
            "plugins.qwen3_moe.cache (command line) configures 'qwen3_moe', which is no active plugin with settings "
            "of its own; take it out",
            id="configuration of a plugin that has none",
        ),
        pytest.param(
            "rollout.engine=fast",
            "rollout.engine (command line) configures rollout, for which nothing is picked; write rollout=NAME",
            id="configuration of a slot without a pick",
        ),
        pytest.param(
            "observer.jsonl.every=2",
            "observer.jsonl.every (command line): observer 'jsonl' of plugin 'jsonl' (xtuner-core 0.1.0) has no "
            "configuration; take it out",
            id="configuration of an offer that has none",
        ),
        pytest.param(
            "model.head_dim=33",
            "model: head_dim must be even, because channels rotate in pairs, not 33; "
            f"the section model belongs to {QWEN}",
            id="refused by the dataclass",
        ),
        pytest.param(
            "engine.clip_norm=-1",
            "the run's own settings: clip_norm must be positive or null, not -1.0; "
            "the section at the root belongs to xtuner-core",
            id="refused by a dataclass of the core",
        ),
        pytest.param(
            "seed=${model.layers}",
            "Interpolation key 'model.layers' not found; write a key that is there, or escape the value: \\${…}",
            id="interpolation of nothing",
        ),
        pytest.param(
            "operator.attention.reference=1",
            "operator.attention.reference = 1 (command line) pins no implementation; "
            "write operator.NAME=IMPLEMENTATION",
            id="pin that is none",
        ),
    ],
)
def test_a_bad_value_is_told_with_its_key_its_origin_and_its_owner(problem, override, message):
    assert problem(overrides=[override]) == message


def test_configuration_of_an_inactive_plugin_says_how_to_activate_it(problem, install):
    install("sleeper", "raise RuntimeError")
    assert problem(overrides=["plugins.sleeper.depth=3"]) == (
        "plugins.sleeper.depth (command line) configures the plugin 'sleeper', which is not active; "
        "add --plugins sleeper"
    )


def test_settings_of_an_active_plugin_are_checked_like_any_section(planned, problem, install):
    install("guard", _guard())
    assert planned(plugins=["guard"], overrides=["plugins.guard.limit=9"]).config["plugins"] == {"guard": {"limit": 9}}
    assert problem(plugins=["guard"], overrides=["plugins.guard.limits=9"]).endswith("did you mean 'limit'?")


def test_a_value_that_is_required_and_not_given_is_asked_for(problem, planned, install):
    source = "@dataclass\nclass Config:\n    path: str\n    size: int = 1\n"
    install.offer("shelf", "dataset", 'config="stranger_shelf.plugin:Config"', source=source)
    assert problem(overrides=[MODEL, "dataset=shelf"]) == (
        "dataset.shelf.path: a value is required, and none is given; write dataset.shelf.path=VALUE; "
        "the section dataset.shelf belongs to dataset 'shelf' of plugin 'shelf' (stranger-shelf 1.0)"
    )
    assert planned(overrides=[MODEL, "dataset=shelf", "dataset.shelf.path=x"]).config["dataset"]["shelf"]["path"] == "x"


def test_a_frozen_dataclass_takes_values_like_any_other(planned, problem, install):
    inner = "@dataclass(frozen=True)\nclass Inner:\n    depth: int = 1\n"
    source = f"{inner}@dataclass(frozen=True)\nclass Config:\n    size: int = 1\n    inner: Inner = Inner()\n"
    install.offer("shelf", "dataset", 'config="stranger_shelf.plugin:Config"', source=source)
    overrides = [MODEL, "dataset=shelf", "dataset.shelf.size=2", "dataset.shelf.inner.depth=3"]
    assert planned(overrides=overrides).config["dataset"]["shelf"] == {"size": 2, "inner": {"depth": 3}}
    assert "did you mean 'depth'?" in problem(overrides=[MODEL, "dataset=shelf", "dataset.shelf.inner.dept=3"])


def test_whatever_a_dataclass_raises_is_told_with_its_section(problem, install):
    check = "    def __post_init__(self):\n        assert self.size == 1, 'one'\n"
    source = f"@dataclass\nclass Config:\n    size: int = 1\n{check}"
    install.offer("shelf", "dataset", 'config="stranger_shelf.plugin:Config"', source=source)
    assert problem(overrides=[MODEL, "dataset=shelf", "dataset.shelf.size=2"]).startswith(
        "dataset.shelf: one; the section"
    )


def test_a_configuration_that_no_section_can_hold_is_its_plugins_fault(problem, install):
    source = "@dataclass\nclass Config:\n    thing: set[int] = field(default_factory=set)\n"
    install.offer("shelf", "dataset", 'config="stranger_shelf.plugin:Config"', source=source)
    message = problem(overrides=[MODEL, "dataset=shelf"])
    assert message.startswith("the configuration Config of dataset 'shelf' of plugin 'shelf' (stranger-shelf 1.0) can")
    assert message.endswith("its fields take plain types: numbers, strings, lists, mappings")


def test_several_problems_are_told_at_once(refused):
    overrides = ["model.num_layer=4", "optimizer.learning_rate=fast", "device=npu", "sed=1", "algorithm.steps=-1"]
    composition = refused(overrides=overrides)
    assert [found.key for found in composition.problems] == [
        "device",
        "model.num_layer",
        "optimizer.learning_rate",
        "sed",
        "algorithm",
    ]
    with pytest.raises(ComposeError) as caught:
        composition.require()
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) == 6


# ── patches ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_patches_of_one_path_are_refused_with_both_plugins(problem, install):
    install("fast", _patching("optimizer.learning_rate", 0.1, "it is fast"))
    install("slow", _patching("optimizer.learning_rate", 0.001, "it is slow"))
    assert problem(plugins=["fast", "slow"]) == (
        "plugins 'fast' and 'slow' both set optimizer.learning_rate: to 0.1 (it is fast) and to 0.001 (it is slow); "
        "leave one of them out"
    )


def test_a_patch_of_a_section_and_one_of_a_value_in_it_conflict_too(problem, install):
    install("wide", _patching("engine", {"clip_norm": 2.0}, "all of it"))
    install("deep", _patching("engine.clip_norm", 3.0, "one of it"))
    assert "both set engine" in problem(plugins=["wide", "deep"])


@pytest.mark.parametrize("path", ["model", "observer.jsonl", "model.name", "rollout"])
def test_a_patch_of_a_pick_is_refused(problem, install, path):
    install("pusher", _patching(path, "other", "it knows better"))
    assert problem(plugins=["pusher"]) == (
        f"plugin 'pusher' patches {path}, which is a pick; picks are the user's; update or leave out 'pusher'"
    )


def test_a_patch_of_a_key_that_is_not_there_names_the_plugin_and_the_near_key(problem, install):
    install("pusher", _patching("optimizer.learning_rat", 1, "it knows better"))
    assert problem(plugins=["pusher"]) == (
        "there is no key optimizer.learning_rat (patch of plugin 'pusher': it knows better); "
        f"the section optimizer belongs to {ADAMW}; did you mean 'learning_rate'?"
    )


def test_what_a_plugin_has_against_a_plan_refuses_it(problem, install):
    source = "@hookimpl\ndef xtuner_check(plan):\n    return [Problem(message='seed 13', fix='write seed=14')]\n"
    install("guard", _guard() + source)
    assert problem(plugins=["guard"], overrides=["seed=13"]) == "seed 13; write seed=14"


def test_no_failure_of_the_request_is_raised_by_compose_and_require_raises_it(tmp_path):
    composition = compose(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError) as caught:
        composition.require()
    assert caught.value is composition.error


# ── through the command line ───────────────────────────────────────────────────────────────────────────────────────


def test_the_command_line_tells_them_with_exit_codes_and_leaves_nothing_behind(tmp_path, install):
    install("poison", "raise RuntimeError('poison')")
    (tmp_path / "bad.yaml").write_text("seed: [")
    environment = os.environ | {"PYTHONPATH": str(install.site)}
    code = """
import sys
from xtuner_core.cli.main import main
for arguments in (["model.num_layer=4"], ["bad.yaml"], ["model=./gone"], ["--plugins", "poison"]):
    print("exit", main(["run", *arguments]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split("\n")[:4] == ["exit 2", "exit 2", "exit 2", "exit 3"], done.stderr
    assert "did you mean 'num_layers'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml", "site"]


def _guard() -> str:
    return """
from dataclasses import dataclass
from xtuner_core.api import *
@dataclass
class Settings:
    limit: int = 3
@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="made for a test", settings=Settings)
@hookimpl
def xtuner_explain(error):
    return []
"""


def _patching(path: str, value: object, reason: str) -> str:
    return f"""
from xtuner_core.api import *
@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="made for a test")
@hookimpl
def xtuner_configure(config):
    return [Patch({path!r}, {value!r}, {reason!r})]
"""
