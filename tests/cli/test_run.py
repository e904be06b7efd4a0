"""`run`: what reaches the public API, and what a dry run checks without writing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import xtuner_core

SMALL = ("model.num_layers=1", "model.num_experts=2", "model.hidden_size=32", "model.moe_intermediate_size=16")


@pytest.fixture
def ran(monkeypatch):
    """Stands in for `xtuner_core.run`, and keeps what it was given."""
    seen = SimpleNamespace(status="finished", reason=None)

    def run(plan, *, host, **more):
        seen.plan, seen.host, seen.more = plan, host, more
        return SimpleNamespace(status=seen.status, summary={"reason": seen.reason}, nothing_to_do=False)

    monkeypatch.setattr(xtuner_core, "run", run, raising=False)
    return seen


def test_run_hands_the_composed_plan_and_its_host_to_the_public_api(cli, ran):
    result = cli("run", "--plugins", "qwen3_moe", "algorithm.steps=3", "--log-format", "json")

    assert result.code == 0
    assert ran.plan.config["algorithm"]["steps"] == 3
    assert ran.plan.config["observer"]["console"]["format"] == "json"
    assert ran.plan.pick("model").plugin == "qwen3_moe"
    assert {plugin.name for plugin in ran.plan.plugins} == set(ran.host.active)


@pytest.mark.parametrize(
    ("reason", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("time_limit_seconds", 75), ("the platform said so", 130)]
)
def test_a_stopped_run_has_the_exit_code_of_what_stopped_it(cli, ran, reason, code):
    ran.status, ran.reason = "stopped", reason

    assert cli("run").code == code


def test_run_hands_over_where_the_run_lives_and_whether_it_goes_on(cli, ran, tmp_path):
    assert cli("run", "--folder", str(tmp_path), "--resume", "--accept-changes").code == 0
    assert ran.more["folder"] == tmp_path
    assert ran.more["resume"]
    assert ran.more["accept_changes"]


@pytest.mark.parametrize("options", [["--accept-changes"], ["--dry-run", "--resume"], ["--dry-run", "--folder", "a"]])
def test_options_of_a_resume_that_would_do_nothing_are_refused(cli, ran, options):
    assert cli("run", *options).code == 2
    assert not hasattr(ran, "plan")


def test_a_dry_run_checks_everything_and_writes_nothing(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = cli("run", "--dry-run", "device=cpu", *SMALL)

    assert result.code == 0, result.err
    assert list(tmp_path.iterdir()) == []
    for part in ("qwen3-moe", "command line", "parameters", "tokenizer: 4,096 tokens", "lower preference", "digest "):
        assert part in result.out
    assert "nothing was written" in result.out


def test_a_dry_run_finds_what_the_run_would_stumble_over(cli):
    result = cli("run", "--dry-run", "model.vocab_size=64", *SMALL)

    assert result.code == 4
    assert "the model embeds 64" in result.err
    assert result.out == ""


def test_a_plan_that_a_dry_run_printed_is_replayed_with_the_same_digest(cli, ran, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(cli("run", "--dry-run", "--output-plan", *SMALL).out)

    result = cli("run", "--from", str(plan))

    assert result.code == 0
    assert ran.plan.digest == json.loads(plan.read_text())["digest"]


def test_an_edited_plan_is_refused_with_the_field(cli, ran, tmp_path):
    plan = tmp_path / "plan.json"
    text = cli("run", "--dry-run", "--output-plan", *SMALL).out
    plan.write_text(text.replace('"num_layers": 1', '"num_layers": 3'))

    result = cli("run", "--from", str(plan))

    assert result.code == 3
    assert "config.model.num_layers" in result.err
