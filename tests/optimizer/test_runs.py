"""Rules, optimizers, schedules and skipped steps in real runs of the tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from xtuner_core.api import LossProvider
from xtuner_core.builtin.cross_entropy.loss import TokenMean
from xtuner_core.config.root import ParameterRule
from xtuner_core.contracts.batch import pack
from xtuner_core.engine.rules import freeze, resolve
from xtuner_core.errors import ComposeError, RunError
from xtuner_core.testing import build_model, compose_tiny, fake_plugin, random_documents, tiny_host
from xtuner_core.wiring import Outcome, RunHandle, run

STEPS = {"algorithm": {"steps": 4}}


def trained(folder: Path, **overrides: Any) -> Outcome:
    return run(compose_tiny({"output": str(folder), **STEPS, **overrides}), log_format="json")


def weights(outcome: Outcome) -> dict[str, torch.Tensor]:
    (file,) = (outcome.folder / "export").glob("*.safetensors")
    with safe_open(file, "pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()]


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("optimizer", "precision"), [("adamw", "bf16"), ("muon", "fp32")])
def test_frozen_roles_keep_their_bits_and_all_else_learns(tmp_path, optimizer, precision):
    frozen = [{"role": role, "frozen": True} for role in ("embed", "moe", "norm")]
    setting = {"precision": precision, "parameters": frozen}
    none = trained(tmp_path / "none", **setting, optimizer={"name": optimizer, "learning_rate": 0.0})
    some = trained(tmp_path / "some", **setting, optimizer={"name": optimizer, "learning_rate": 0.01})
    before, after = weights(none), weights(some)
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert kept == {name for name in before if re.search("embed|norm|experts|router", name)}
    assert lines(some)[-1]["loss"] < lines(some)[0]["loss"]
    (start,) = [each for each in log(some.folder) if each["event"] == "run started"]
    assert start["trained_parameters"] == sum(after[name].numel() for name in after.keys() - kept)


def test_learning_rates_that_differ_stand_in_the_metrics(tmp_path):
    slow = [
        {"role": "embed", "learning_rate_factor": 0.5},
        {"role": "attn", "layers": "1-", "learning_rate_factor": 0.0},
    ]
    optimizer = {"name": "muon", "learning_rate": 0.01, "adamw_learning_rate": 0.002}
    outcome = trained(tmp_path, optimizer=optimizer, parameters=slow, schedule={"name": "linear", "warmup_steps": 2})
    rates = [{key: value for key, value in line.items() if "learning_rate" in key} for line in lines(outcome)]
    for found, factor in zip(rates, (0.5, 1.0, 0.5, 0.0), strict=True):
        assert found == pytest.approx(
            {
                "learning_rate": 0.01 * factor,
                "metrics.learning_rate.adamw": 0.002 * factor,
                "metrics.learning_rate.adamw.embed": 0.001 * factor,
                "metrics.learning_rate.attn.1-": 0.0,
            },
            abs=1e-15,
        )


def test_nothing_is_differentiated_below_the_lowest_parameter_that_learns():
    """Frozen embedding and first layer: their output needs no gradient, and neither does any weight of theirs."""
    model = build_model(tiny_host(), "tiny", {}, spread=0.2)
    freeze(model, resolve([ParameterRule(role=r, layers=n, frozen=True) for r, n in FROZEN], model))
    needed: list[bool] = []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, inputs, output: needed.append(output[0].requires_grad))
    loss = model(pack(random_documents(257)[:3])).predictions[0].hidden_TD.square().sum()
    loss.backward()
    assert needed == [False, True]
    assert {name for name, p in model.named_parameters() if p.grad is None} == {
        name for name, _ in model.named_parameters() if name.startswith(("embed", "layers.0.", "head"))
    }


FROZEN = [("embed", None), ("attn", "0"), ("mlp", "0"), ("norm", "0")]


def test_a_rule_that_the_model_cannot_keep_is_refused_before_anything_is_trained(tmp_path):
    composition = compose_tiny({"output": str(tmp_path), "parameters": [{"role": "vision", "frozen": True}]})
    with pytest.raises(ComposeError, match=r"parameters\[0\]: no parameter of this model has the role 'vision'"):
        run(composition)


class Spoilt(TokenMean):
    """A loss that is never a number."""

    def total(self, scores, batch):
        return super().total(scores, batch) * float("nan")


def spoilt(config):
    return Spoilt()


def test_a_run_logs_the_steps_that_it_skips_and_fails_after_as_many_as_it_may(tmp_path):
    provider = LossProvider(name="spoilt", factory=f"{__name__}:spoilt", summary="-")
    host = tiny_host(objects={"spoilt": fake_plugin("spoilt", provider)})
    setting = {"output": str(tmp_path), **STEPS, "loss": "spoilt", "engine": {"max_skipped": 3}}
    with pytest.raises(RunError, match="3 steps in a row were not applied, the last of them step 3"):
        run(compose_tiny(setting, host=host), log_format="json")
    (file,) = tmp_path.glob("*/log.jsonl")
    skipped = [(each["step"], each["reason"]) for each in log(file.parent) if "skipped" in each["event"]]
    assert skipped == [(1, "the loss 'main' is nan"), (2, "the loss 'main' is nan")]


class StopAt:
    """An observer that stops the run after a step."""

    def __init__(self, step: int) -> None:
        self.handle, self.step = RunHandle(), step

    def on_start(self, start: Any) -> None:
        pass

    def on_step(self, step: Any) -> None:
        if step.result.step == self.step:
            self.handle.stop("enough")

    def on_end(self, end: Any) -> None:
        pass


def test_muon_with_rules_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
    setting = {
        "precision": "bf16",
        "optimizer": {"name": "muon", "learning_rate": 0.01},
        "schedule": {"name": "wsd", "warmup_steps": 1, "decay_steps": 2},
        "parameters": [{"role": "moe.router", "frozen": True}, {"role": "attn", "learning_rate_factor": 0.5}],
    }
    straight = trained(tmp_path / "straight", **setting)
    stop = StopAt(2)
    composition = compose_tiny({"output": str(tmp_path), **STEPS, **setting})
    folder = tmp_path / "stopped"
    assert run(composition, folder=folder, observers=[stop], handle=stop.handle).status == "stopped"
    resumed = run(composition, folder=folder, resume=True)
    assert (resumed.status, resumed.steps) == ("finished", 4)
    ours, theirs = weights(resumed), weights(straight)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
