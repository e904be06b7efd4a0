"""Five third-party distributions, installed with pip, work by name with no change in the core."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xtuner_core import compose, run

SMALL = ["export.enabled=false", "observer=null", "algorithm.steps=2"]
PRETRAIN = [
    "algorithm.tokens_per_step=128",
    "algorithm.micro_batch_tokens=128",
    "algorithm.document_tokens=64",
    "algorithm.compare_xz=false",
    "algorithm.sample_prompts=[]",
    "dataset=verses",
]
CORPUS = """
from importlib.resources import files
from pathlib import Path

from xtuner_core.data.memory import TextCorpus

def open_corpus(config, *, cache):
    texts = ["In the beginning God created the heaven and the earth."] * 8
    return TextCorpus("verses", texts, texts, tokenizer=Path(str(files("xtuner_core.builtin.kjv"))))
"""


@pytest.fixture
def verses(install) -> Path:
    """A dataset of eight verses, so that a run is short."""
    text = f"""
from xtuner_core.api import *
{CORPUS}
@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="eight verses")
@hookimpl
def xtuner_providers():
    return [Provider(slot="dataset", name="verses", factory="stranger_verses.plugin:open_corpus", summary="verses")]
"""
    return install("verses", text, offers=["dataset/verses"]).parent


@pytest.mark.parametrize(
    ("plugins", "overrides", "key", "name"),
    [
        (["bigram"], PRETRAIN, "model", "bigram"),
        (["bigram"], [*PRETRAIN, "parallelism=rewind"], "parallelism.rewind", "rewind"),
        (["bigram", "abacus"], PRETRAIN, "device", "abacus"),
        (["bigram", "focal"], PRETRAIN, "loss", "focal"),
        (["bigram", "parrot"], ["dataset=verses"], "algorithm", "parrot"),
    ],
    ids=["model", "parallelism", "device", "loss", "algorithm"],
)
def test_a_stranger_of_each_slot_trains_two_steps_by_name(strangers, verses, tmp_path, plugins, overrides, key, name):
    composition = compose(plugins=plugins, overrides=[*SMALL, *overrides])
    pick = composition.require().pick(key)
    assert (pick.name, pick.plugin) == (name, name)
    outcome = run(composition, folder=tmp_path / "run")
    assert (outcome.status, outcome.steps) == ("finished", 2)


def test_the_facts_of_a_strangers_device_stand_in_the_runs_summary(strangers, verses, tmp_path):
    composition = compose(plugins=["bigram", "abacus"], overrides=[*SMALL, *PRETRAIN])
    run(composition, folder=tmp_path / "run")
    assert "ten wires" in (tmp_path / "run" / "log.jsonl").read_text()


def test_a_strategy_that_wraps_modules_by_role_changes_no_bit_of_the_result(strangers, verses, tmp_path):
    def losses(*more: str) -> list[float]:
        watcher = _Watcher()
        run(
            compose(plugins=["bigram"], overrides=[*SMALL, *PRETRAIN, *more]),
            folder=tmp_path / f"run{len(more)}",
            observers=[watcher],
        )
        return watcher.losses

    plain, wrapped = losses(), losses("parallelism.rewind.role=mlp")
    assert plain == wrapped
    assert all(math.isfinite(loss) for loss in plain)


def test_all_five_together_run_from_the_command_line(strangers_site, verses, tmp_path):
    command = [sys.executable, "-m", "xtuner_core", "run", "--plugins", "bigram,abacus,focal,parrot"]
    command += ["parallelism=rewind", "dataset=verses", "export.enabled=false", f"output={tmp_path}/runs"]
    environment = os.environ | {"PYTHONPATH": f"{strangers_site}{os.pathsep}{verses}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    plan = json.loads((folder / "plan.json").read_text())
    strangers = {plugin["name"]: plugin["version"] for plugin in plan["plugins"] if plugin["version"] == "3.1"}
    assert sorted(strangers) == ["abacus", "bigram", "focal", "parrot", "rewind"]
    assert json.loads((folder / "summary.json").read_text())["repeated"] == 2


def test_a_strangers_checkpoint_folder_finds_its_plugin_through_the_index(strangers, planned, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bigram", "width": 48, "num_layers": 1}))
    plan = planned(overrides=[f"model={tmp_path}"])
    pick = plan.pick("model")
    assert (pick.name, pick.source) == ("bigram", str(tmp_path.resolve()))
    assert plan.config["model"]["width"] == 48
    assert plan.origins["model.width"] == f"{tmp_path}/config.json"


def test_a_strangers_model_goes_on_from_its_own_export(strangers, verses, tmp_path):
    first = run(
        compose(plugins=["bigram"], overrides=[*SMALL, *PRETRAIN, "export.enabled=true"]), folder=tmp_path / "one"
    )
    again = compose(overrides=[*SMALL, *PRETRAIN, f"model={first.folder / 'export'}"])
    assert again.require().pick("model").plugin == "bigram"
    assert run(again, folder=tmp_path / "two").status == "finished"


def test_no_stranger_imports_more_than_the_cores_public_modules():
    allowed = ("xtuner_core.api", "xtuner_core.contracts", "xtuner_core.nn")
    allowed += ("xtuner_core.errors", "xtuner_core.data.reading")
    sources = list((Path(__file__).parents[1] / "strangers").rglob("*.py"))
    lines = [line for source in sources for line in source.read_text().splitlines()]
    imports = [line.split()[1] for line in lines if line.startswith(("from xtuner_core", "import xtuner_core"))]
    assert imports
    assert all(name.startswith(allowed) for name in imports)


class _Watcher:
    """Keeps the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_start(self, start: object) -> None:
        """Nothing to do."""

    def on_step(self, step: object) -> None:
        """Keep the step's loss."""
        self.losses.append(step.result.loss)  # type: ignore[attr-defined]

    def on_end(self, end: object) -> None:
        """Nothing to do."""
