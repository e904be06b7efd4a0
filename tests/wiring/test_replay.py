"""A plan is replayed exactly or refused, the differing field named."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from xtuner_core import Host, compose
from xtuner_core.errors import ConfigError, PlanMismatch
from xtuner_core.plan import Plan
from xtuner_core.worker import replay

SPAWNED = """
import sys
from xtuner_core.worker import replay
plan, host = replay(sys.argv[1])
print(plan.digest, "torch" in sys.modules)
"""
SOURCE = """
@dataclass
class Config:
    strength: float = 0.1
    shape: str = "round"
    def __post_init__(self):
        if self.strength > 1:
            raise ValueError("strength must be at most 1")
"""


@pytest.fixture
def stranger(install):
    """Installs the loss that the plans of this file pick; again, to change it."""

    def put(source: str = SOURCE, **options: object):
        return install.offer("spring", "loss", 'config="stranger_spring.plugin:Config"', source=source, **options)

    put()
    return put


@pytest.fixture
def frozen(stranger, tmp_path):
    """A plan file."""
    plan = compose(plugins=["spring"], overrides=["loss.strength=0.3", "seed=7"]).require()
    file = tmp_path / "plan.json"
    file.write_text(plan.to_json())
    return file


def test_a_spawned_process_replays_the_plan_to_the_same_digest_without_torch(frozen, install):
    environment = os.environ | {"PYTHONPATH": str(install.site)}
    done = subprocess.run(
        [sys.executable, "-c", SPAWNED, str(frozen)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [json.loads(frozen.read_text())["digest"], "False"], done.stderr


def test_a_plan_survives_being_written_and_read(frozen):
    plan = Plan.load(frozen)
    assert plan.to_json() == frozen.read_text()
    assert Plan.load(frozen.parent).digest == plan.digest


def test_the_same_request_gives_the_same_digest_and_another_does_not(stranger):
    digests = [compose(plugins=["spring"], overrides=[f"seed={seed}"]).require().digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_does_not_depend_on_how_a_value_was_written(stranger, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("loss:\n  name: spring\n  strength: 0.3\nmodel: qwen3_moe:tiny\nalgorithm: pretrain\n")
    typed = compose(recipe, overrides=["dataset=kjv"]).require()
    given = {"loss": {"name": "spring", "strength": 0.3}, "model": "qwen3_moe:tiny", "algorithm": "pretrain"}
    passed = compose(given, overrides={"dataset": "kjv"}).require()
    assert typed.digest == passed.digest
    assert typed.origins != passed.origins


# ── edits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _config(data):
    data["config"]["loss"]["strength"] = 0.4


def _nested(data):
    data["config"]["algorithm"]["sample_prompts"][0] = "And"


def _added(data):
    data["config"]["loss"]["extra"] = 1


def _removed(data):
    del data["config"]["seed"]


def _pick(data):
    next(pick for pick in data["picks"] if pick["key"] == "model")["preset"] = "30b-a3b"


def _version(data):
    next(plugin for plugin in data["plugins"] if plugin["name"] == "spring")["version"] = "1.1"


def _core(data):
    data["core"] = "0.0.9"


def _digest(data):
    data["digest"] = "0" * 64


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (_config, "config.loss.strength"),
        (_nested, "config.algorithm.sample_prompts"),
        (_added, "config.loss.extra"),
        (_removed, "config.seed"),
        (_pick, "picks.model.preset"),
        (_version, "plugins.spring.version"),
        (_core, "core"),
        (_digest, "digest"),
    ],
)
def test_an_edited_plan_is_refused_and_the_field_named(frozen, edit, field):
    data = json.loads(frozen.read_text())
    edit(data)
    frozen.write_text(json.dumps(data))
    with pytest.raises(PlanMismatch) as caught:
        replay(frozen)
    assert caught.value.message == f"{frozen} was edited after it was frozen: {field}"
    assert caught.value.fix == "compose a new run with the change on the command line"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', "not json"])
def test_what_is_no_plan_is_refused_as_such(tmp_path, text):
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"plan\.json is no plan"):
        replay(file)


def test_a_plan_of_another_schema_is_refused(frozen):
    data = json.loads(frozen.read_text())
    frozen.write_text(json.dumps(data | {"schema": 99}))
    with pytest.raises(ConfigError, match="has schema 99, this core reads 1"):
        replay(frozen)


def test_a_folder_without_a_plan_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is no run's folder: .*plan\.json cannot be read"):
        replay(tmp_path)


# ── another environment ────────────────────────────────────────────────────────────────────────────────────────────


def test_another_version_of_a_plugin_is_refused_and_the_field_named(frozen, stranger):
    stranger(version="1.1")
    with pytest.raises(PlanMismatch) as caught:
        replay(frozen)
    assert caught.value.message == (
        f'this is not the run that {frozen} froze:\n- plugins.spring.version: "1.0" in the plan, "1.1" here'
    )
    assert caught.value.fix == "install what the plan names, or compose a new run"


def test_an_edited_editable_plugin_is_refused_and_the_field_named(stranger, tmp_path):
    package = stranger(editable=True)
    plan = compose(plugins=["spring"]).require()
    assert next(plugin for plugin in plan.plugins if plugin.name == "spring").content is not None
    file = tmp_path / "plan.json"
    file.write_text(plan.to_json())
    assert replay(file)[0].digest == plan.digest
    (package / "helper.py").write_text("ANSWER = 42\n")
    with pytest.raises(PlanMismatch, match=r'- plugins\.spring\.content: "\w{16}" in the plan, "\w{16}" here'):
        replay(file)


def test_an_edited_editable_plugin_changes_the_digest_of_a_new_run(stranger):
    package = stranger(editable=True)
    before = compose(plugins=["spring"]).require().digest
    (package / "helper.py").write_text("ANSWER = 42\n")
    assert compose(plugins=["spring"]).require().digest != before


def test_a_plugin_that_is_gone_is_refused_by_name(frozen, install):
    install.describe("stranger-spring", [])
    with pytest.raises(PlanMismatch) as caught:
        replay(frozen)
    assert caught.value.message == (
        "the plan's plugin 'spring' (stranger-spring 1.0) cannot be activated: no plugin 'spring' is installed"
    )
    assert caught.value.plugin == "spring"


def test_a_plugin_that_no_longer_takes_its_configuration_is_refused_by_key(frozen, stranger, monkeypatch):
    monkeypatch.delitem(sys.modules, "stranger_spring.plugin")
    stranger(SOURCE.replace("> 1", "> 0.2").replace("at most 1", "at most 0.2"))
    _newer(sys.path[0])
    with pytest.raises(PlanMismatch, match=r"config\.loss: loss 'spring' .* no longer takes it: strength must"):
        replay(frozen)


def test_an_offer_that_its_plugin_no_longer_makes_is_refused_by_key(frozen, install, monkeypatch):
    monkeypatch.delitem(sys.modules, "stranger_spring.plugin")
    text = "from xtuner_core.api import *\n@hookimpl\ndef xtuner_plugin():\n"
    install("spring", f'{text}    return PluginInfo(contract="1.0", summary="bare")\n')
    _newer(sys.path[0])
    with pytest.raises(PlanMismatch, match=r"picks\.loss: plugin 'spring' no longer offers the loss 'spring'"):
        replay(frozen)


def test_a_plugin_passed_as_an_object_replays_in_its_own_host_alone(tmp_path):
    from xtuner_core.api import LossProvider, PluginInfo, hookimpl

    class Plugin:
        @hookimpl
        def xtuner_plugin(self):
            return PluginInfo(contract="1.0", summary="an object")

        @hookimpl
        def xtuner_losses(self):
            return [LossProvider(name="mine", factory="math:floor", summary="a platform's own")]

    host = Host(objects={"mine": Plugin()})
    plan = compose(plugins=["mine"], host=host).require()
    file = tmp_path / "plan.json"
    file.write_text(plan.to_json())
    assert replay(file, host=host)[0].digest == plan.digest
    with pytest.raises(PlanMismatch, match="was passed as an object, which no other process can find"):
        replay(file)


def test_values_that_json_has_no_type_for_replay_all_the_same(install, tmp_path):
    source = """
from enum import Enum
from pathlib import Path
class Colour(Enum):
    RED = 1
    BLUE = 2
@dataclass
class Config:
    colour: Colour = Colour.RED
    folder: Path = Path("here")
    limit: float = float("inf")
    table: dict[str, int] = field(default_factory=lambda: {"a": 1})
    pair: tuple[int, int] = (1, 2)
"""
    install.offer("paint", "loss", 'config="stranger_paint.plugin:Config"', source=source)
    host = Host()
    plan = compose(plugins=["paint"], overrides=["loss.colour=BLUE", "loss.folder=/tmp"], host=host).require()
    assert (plan.config["loss"]["colour"], plan.config["loss"]["folder"]) == ("BLUE", "/tmp")
    file = tmp_path / "plan.json"
    file.write_text(plan.to_json())
    assert replay(file)[0].digest == plan.digest
    from xtuner_core.parts import Parts

    config = Parts(Plan.load(file), host).config("loss")
    assert (config.colour.name, str(config.folder), config.limit) == ("BLUE", "/tmp", float("inf"))


def _newer(site: str) -> None:
    """Drop byte code that is as old as the source within the clock's resolution."""
    from pathlib import Path

    for file in Path(site).rglob("*.pyc"):
        file.unlink()
