"""Best checkpoints are kept and exported; a run that no longer improves ends early."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from safetensors.torch import load_file

from xtuner_core.api import AlgorithmProvider, PluginInfo, hookimpl
from xtuner_core.builtin.pretrain.algorithm import build as build_pretrain
from xtuner_core.builtin.pretrain.config import PretrainConfig
from xtuner_core.config.root import BestConfig
from xtuner_core.engine.best import Best
from xtuner_core.engine.checkpoint.keep import superfluous
from xtuner_core.engine.checkpoint.manifest import Score, read_score, write_manifest
from xtuner_core.errors import RunError
from xtuner_core.testing.tiny_run import RECIPE


@dataclass(kw_only=True)
class ScriptedConfig(PretrainConfig):
    """Pre-training whose evaluations say what they are told to."""

    scores: dict[str, float] = field(default_factory=dict)
    """The metric by step."""


def build_scripted(config, services):
    algorithm = build_pretrain(config, services)
    after_step = algorithm.after_step

    def scored(result):
        found = {name: value for name, value in after_step(result).items() if not name.startswith("held_out")}
        score = config.scores.get(f"after_{result.step}")
        return found if score is None else {**found, "held_out.loss": score}

    algorithm.after_step = scored
    algorithm.finish = dict
    return algorithm


class Scripted:
    @hookimpl
    def xtuner_plugin(self):
        return PluginInfo(contract="1.0", summary="scripted")

    @hookimpl
    def xtuner_algorithms(self):
        factory, config = f"{__name__}:build_scripted", f"{__name__}:ScriptedConfig"
        return [
            AlgorithmProvider(name="scripted", factory=factory, config=config, loss="cross_entropy", summary="scripted")
        ]


@pytest.fixture
def scripted(tiny, tmp_path):
    def train(scores, changes=None, **more):
        values = {
            **{f"algorithm.{name}": value for name, value in RECIPE["algorithm"].items()},
            "algorithm.name": "scripted",
            "algorithm.steps": tiny.STEPS,
            "algorithm.scores": {f"after_{step}": score for step, score in scores.items()},
            "checkpoint.every_steps": None,
            "checkpoint.keep_last": 1,
            **(changes or {}),
        }
        return tiny.train(tmp_path / "run", values, objects={"scripted": Scripted()}, **more)

    return train


def test_the_best_is_kept_beside_the_last(tiny, scripted):
    outcome = scripted({2: 3.0, 4: 1.0, 6: 2.0}, {"checkpoint.at_end": True})
    assert tiny.checkpoints(outcome.folder) == ["step-00000004", "step-00000008"]
    assert outcome.summary["best"] == {"metric": "held_out.loss", "value": 1.0, "step": 4}
    assert read_score(outcome.folder / "checkpoints" / "step-00000004").value == 1.0


def test_the_best_weights_are_exported_where_that_is_asked_for(tiny, scripted):
    outcome = scripted({2: 3.0, 4: 1.0, 6: 2.0}, {"export.best": True})
    best = load_file(outcome.folder / "checkpoints" / "step-00000004" / "model" / "model.safetensors")
    exported = load_file(outcome.folder / "export" / "model.safetensors")
    assert all(exported[name].equal(best[name]) for name in best)


def test_weights_that_are_better_than_every_checkpoint_are_exported_as_they_are(tiny, whole, scripted):
    outcome = scripted({4: 1.0, 8: 0.5}, {"export.best": True})
    assert tiny.weights(outcome.folder) == tiny.weights(whole)


def test_without_improvement_the_run_ends_early_and_is_finished(scripted):
    outcome = scripted({1: 2.0, 2: 1.0, 3: 1.5, 4: 1.0, 5: 0.1}, {"best.patience": 2})
    assert (outcome.status, outcome.steps) == ("finished", 4)
    assert outcome.summary["reason"] == "no better held_out.loss than 1 of step 2 in 2 evaluations"
    assert json.loads((outcome.folder / "summary.json").read_text())["status"] == "finished"


def test_patience_survives_a_resume(scripted):
    scores = {1: 1.0, 2: 2.0, 4: 2.0, 5: 2.0, 6: 2.0}
    stopped = scripted(scores, {"best.patience": 3}, stop_after=3)
    assert stopped.status == "stopped"
    outcome = scripted(scores, {"best.patience": 3}, resume=True)
    assert (outcome.status, outcome.steps) == ("finished", 5)


def test_a_metric_that_an_evaluation_does_not_give_is_refused_at_the_first(scripted):
    with pytest.raises(RunError) as caught:
        scripted({2: 1.0}, {"best.metric": "held_out.accuracy", "best.patience": 2})
    expected = "best.metric=held_out.accuracy does not appear: the evaluation gives held_out.loss"
    assert caught.value.message == expected


def test_a_metric_that_is_relied_on_and_never_comes_is_refused_with_a_checkpoint_left(tiny, scripted, tmp_path):
    with pytest.raises(RunError, match="does not appear: the run evaluated nothing"):
        scripted({}, {"export.best": True})
    assert tiny.checkpoints(tmp_path / "run") == ["step-00000008"]


@pytest.mark.full
def test_by_default_a_run_that_evaluates_nothing_keeps_no_best(scripted):
    outcome = scripted({}, {"checkpoint.every_steps": 2})
    assert outcome.status == "finished"
    assert outcome.summary["best"] is None


def test_an_improvement_has_a_size():
    best = Best(config=BestConfig(metric="score", mode="max", min_delta=0.1, patience=2))
    for step, value in enumerate([1.0, 1.05, 1.2, 1.25, 1.1], start=1):
        best.take(step, {"score": value})
    assert (best.step, best.value, best.idle) == (3, 1.2, 2)
    assert best.exhausted


def saved(run, step, value):
    folder = run / f"step-{step:08d}"
    folder.mkdir(parents=True)
    score = None if value is None else Score(metric="score", mode="max", value=value)
    write_manifest(folder, step=step, score=score)
    return folder


def test_what_is_neither_among_the_newest_nor_among_the_best_is_superfluous(tmp_path):
    values = {10: 0.3, 20: 0.9, 30: None, 40: 0.9, 50: 0.1, 60: None}
    newest_first = [saved(tmp_path, step, value) for step, value in sorted(values.items(), reverse=True)]
    gone = superfluous(newest_first, last=2, best=2)
    assert [folder.name[-2:] for folder in gone] == ["30", "10"]
    assert superfluous(newest_first, last=6, best=0) == []
