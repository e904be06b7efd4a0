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
from xtuner_core.wiring import Outcome, run

STEPS = {"algorithm": {"steps": 4}}


def trained(folder: Path, **overrides: Any) -> Outcome:
    return run(compose_tiny({"output": str(folder), **STEPS, **overrides}), log_format="json")


def weights(outcome: Outcome) -> dict[str, torch.Tensor]:
    (file,) = (outcome.folder / "export").glob("*.safetensors")
    with safe_open(file, "pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()]


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
    (log,) = tmp_path.glob("*/log.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    skipped = [(each["step"], each["reason"]) for each in events if "skipped" in each["event"]]
    assert skipped == [(1, "the loss 'main' is nan"), (2, "the loss 'main' is nan")]
