"""`init`: the weights of a run, a checkpoint or a folder, under a new configuration."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from xtuner_core import compose, run
from xtuner_core.errors import DataError, WeightError
from xtuner_core.testing.tiny_run import RECIPE, tiny_host

WITHOUT_MODEL = {name: value for name, value in RECIPE.items() if name != "model"}


def started_from(source, tmp_path, recipe=WITHOUT_MODEL, **changes):
    """One step that changes nothing."""
    keys = {"init": str(source), "output": str(tmp_path / "runs"), "algorithm.steps": 1, "optimizer.learning_rate": 0}
    return compose(recipe, overrides={**keys, **changes}, host=tiny_host())


def tensors(folder):
    return load_file(folder / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_means_its_export_and_brings_model_and_tokenizer(whole, tmp_path):
    composition = started_from(whole, tmp_path, tokenizer="auto")
    plan = composition.require()
    assert plan.config["init"] == plan.pick("model").source == str(whole / "export")
    assert "init=" in plan.origins["model"]
    outcome = run(composition)
    assert equal(tensors(outcome.folder / "export"), tensors(whole / "export"))


def test_a_run_that_was_killed_means_its_best_checkpoint_else_its_newest_good_one(half, tmp_path):
    (half / "summary.json").unlink()
    found = half / "checkpoints"
    assert started_from(half, tmp_path).require().config["init"] == str(found / "step-00000005" / "model")
    (found / "step-00000005" / "model" / "model.safetensors").write_bytes(b"")
    assert started_from(half, tmp_path).require().config["init"] == str(found / "step-00000004" / "model")
    (found / "step-00000004" / "manifest.json").unlink()
    composition = started_from(half, tmp_path)
    assert isinstance(composition.error, DataError)
    assert "no exported weights and no good checkpoint; it has not ended" in composition.problems[0].message


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.full), "bf16"])
def test_a_checkpoint_is_itself_a_model_with_the_optimized_weights(tiny, tmp_path, precision):
    stopped = tiny.train(tmp_path / "run", {"precision": precision}, stop_after=3)
    model = stopped.checkpoint / "model"
    assert {tensor.dtype for tensor in tensors(model).values()} == {torch.float32}
    assert json.loads((model / "config.json").read_text())["dtype"] == "float32"
    assert (model / "tokenizer.json").is_file()
    outcome = run(started_from(stopped.checkpoint, tmp_path))
    assert equal(tensors(outcome.folder / "export"), tensors(model))
    by_path = compose(
        RECIPE,
        overrides={"model": str(model), "output": str(tmp_path / "runs"), "optimizer.learning_rate": 0},
        host=tiny_host(),
    )
    assert equal(tensors(run(by_path).folder / "export"), tensors(model))


def test_a_model_that_is_picked_keeps_its_configuration_and_must_fit(whole, tmp_path):
    fits = run(started_from(whole, tmp_path, recipe=RECIPE))
    assert equal(tensors(fits.folder / "export"), tensors(whole / "export"))
    composition = started_from(whole, tmp_path, recipe=RECIPE, **{"model.hidden_size": 32})
    with pytest.raises(WeightError, match=r"misshapen, expected \[257, 32\], found \[257, 16\]"):
        run(composition)


@pytest.mark.full
def test_nothing_but_weights_is_taken(tiny, whole, tmp_path):
    composition = started_from(whole, tmp_path)
    assert composition.require().config["algorithm"]["steps"] == 1
    seen = tiny.StopAfter()
    run(replace(composition), observers=[seen])
    assert seen.start.steps_done == 0
    assert seen.steps == [1]


def test_a_folder_that_is_none_is_refused(tmp_path):
    composition = started_from(tmp_path / "nowhere", tmp_path)
    (problem,) = composition.problems
    assert f"there is no {tmp_path / 'nowhere'}" in problem.message
    assert "init=" in problem.message
