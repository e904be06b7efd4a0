"""A run that goes on comes to the same bits as one that was never interrupted, and says where it goes on."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from xtuner_core import Plan
from xtuner_core.errors import PlanMismatch, UsageError


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_and_metrics_after_a_resume_are_those_of_an_uninterrupted_run(tiny, whole, tmp_path, precision):
    changes = {"precision": precision}
    expected = whole if precision == "fp32" else tiny.train(tmp_path / "whole", changes).folder
    first = tiny.train(tmp_path / "run", changes, stop_after=3)
    assert (first.status, first.summary["reason"], first.checkpoint.name) == ("stopped", "SIGTERM", "step-00000003")
    second = tiny.train(tmp_path / "run", changes, resume=True)
    assert (second.status, second.steps) == ("finished", tiny.STEPS)
    assert tiny.weights(second.folder) == tiny.weights(expected)
    assert tiny.numbers(second.folder) == tiny.numbers(expected)


def test_totals_go_on_and_observers_are_told_how_far_the_run_is(tiny, whole, half):
    seen = tiny.StopAfter()
    outcome = tiny.train(half, resume=True, observers=(seen,))
    assert seen.start.steps_done == 5
    assert seen.steps == [6, 7, 8]
    assert "goes on after step 5" in seen.start.summary["resume"]
    lines = tiny.numbers(whole)
    assert outcome.summary["tokens"] == sum(line["tokens"] for line in lines)
    assert outcome.summary["seconds"] > seen.end.seconds - 1 > -1
    starts = [line["steps_done"] for line in tiny.log(half) if line["event"] == "run started"]
    assert starts == [0, 5]


class Dice:
    """Draws from every generator of the process at each step, as a component of a stranger may."""

    def __init__(self):
        self.drawn = []

    def on_start(self, start):
        pass

    def on_step(self, step):
        self.drawn.append((random.random(), random.gauss(0, 1), np.random.standard_normal(), torch.rand(()).item()))

    def on_end(self, end):
        pass


def test_random_states_go_on(tiny, tmp_path):
    one, first, second = Dice(), Dice(), Dice()
    tiny.train(tmp_path / "a", observers=(one,))
    tiny.train(tmp_path / "b", observers=(first,), stop_after=3)
    random.seed(99)
    tiny.train(tmp_path / "b", observers=(second,), resume=True)
    assert len(set(one.drawn)) == tiny.STEPS
    assert first.drawn + second.drawn == one.drawn


def test_without_a_checkpoint_the_run_starts_anew(tiny, whole, tmp_path):
    seen = tiny.StopAfter()
    outcome = tiny.train(tmp_path / "new", resume=True, observers=(seen,))
    assert "starts anew" in seen.start.summary["resume"]
    assert tiny.weights(outcome.folder) == tiny.weights(whole)


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew_in_its_folder(tiny, whole, tmp_path):
    never = {"checkpoint.every_steps": None}

    def fall(step):
        raise KeyboardInterrupt

    broken = tiny.StopAfter()
    broken.on_step = fall
    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path / "run", never, observers=(broken,))
    outcome = tiny.train(tmp_path / "run", never, resume=True)
    assert tiny.weights(outcome.folder) == tiny.weights(whole)
    assert tiny.numbers(outcome.folder) == tiny.numbers(whole)


def test_a_finished_run_has_nothing_left_to_do(tiny, tmp_path):
    first = tiny.train(tmp_path / "run")
    before = {file: file.read_bytes() for file in first.folder.rglob("*") if file.is_file()}
    again = tiny.train(tmp_path / "run", resume=True)
    assert again.nothing_to_do
    assert (again.status, again.steps) == ("finished", tiny.STEPS)
    assert {file: file.read_bytes() for file in first.folder.rglob("*") if file.is_file()} == before


def test_a_finished_run_goes_on_where_more_steps_are_accepted(tiny, tmp_path):
    tiny.train(tmp_path / "run")
    seen = tiny.StopAfter()
    more = tiny.train(tmp_path / "run", {"algorithm.steps": 10}, resume=True, accept_changes=True, observers=(seen,))
    assert (more.status, more.steps, seen.start.steps_done) == ("finished", 10, 8)
    longer = tiny.train(tmp_path / "longer", {"algorithm.steps": 10})
    assert tiny.weights(more.folder) == tiny.weights(longer.folder)


def test_without_a_folder_the_newest_unfinished_run_of_the_same_request_goes_on(tiny, whole, tmp_path):
    output = {"output": str(tmp_path / "runs")}
    tiny.train(None, output, stop_after=2)
    newest = tiny.train(None, output, stop_after=3)
    other = tiny.train(None, {**output, "seed": 1}, stop_after=4)
    seen = tiny.StopAfter()
    outcome = tiny.train(None, output, resume=True, observers=(seen,))
    assert outcome.folder == newest.folder
    assert str(newest.folder) in seen.start.summary["resume"]
    assert tiny.weights(outcome.folder) == tiny.weights(whole)
    assert other.folder != newest.folder


def test_without_a_folder_and_with_finished_runs_only_nothing_is_done(tiny, tmp_path):
    output = {"output": str(tmp_path / "runs")}
    finished = tiny.train(None, output)
    again = tiny.train(None, output, resume=True)
    assert again.nothing_to_do
    assert again.folder == finished.folder


def test_a_folder_that_holds_a_run_is_gone_on_with_only_where_that_is_asked_for(tiny, half):
    with pytest.raises(UsageError, match="already holds a run") as caught:
        tiny.train(half)
    assert "--resume" in caught.value.fix


# ── what has changed since ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_changed_configuration_is_named_and_refused(tiny, half):
    before = {file: file.read_bytes() for file in half.rglob("*") if file.is_file()}
    with pytest.raises(PlanMismatch) as caught:
        tiny.train(half, {"optimizer.learning_rate": 0.5, "algorithm.document_tokens": 32}, resume=True)
    assert "config.optimizer.learning_rate: 0.01 in the plan, 0.5 here" in caught.value.message
    assert "config.algorithm.document_tokens: 64 in the plan, 32 here" in caught.value.message
    assert "--accept-changes" in caught.value.fix
    assert {file: file.read_bytes() for file in half.rglob("*") if file.is_file()} == before


def test_a_change_that_is_accepted_counts_and_is_recorded(tiny, whole, half):
    outcome = tiny.train(half, {"optimizer.learning_rate": 0.5}, resume=True, accept_changes=True)
    assert {line["learning_rate"] for line in tiny.numbers(half)[5:]} == {0.5}
    assert tiny.weights(half) != tiny.weights(whole)
    change = "config.optimizer.learning_rate: 0.01 in the plan, 0.5 here"
    assert f"goes on after step 5 with a change accepted: {change}" in Plan.load(half).notes
    assert change in [line.get("change") for line in tiny.log(half)]
    assert outcome.status == "finished"


def test_another_version_of_a_plugin_is_named_and_refused(tiny, half):
    plan = Plan.load(half)
    older = tuple(replace(p, version="0.0.9") if p.name == "adamw" else p for p in plan.plugins)
    (half / "plan.json").write_text(replace(plan, plugins=older).to_json())
    with pytest.raises(PlanMismatch, match=r'plugins\.adamw\.version: "0\.0\.9" in the plan, "0\.1\.0" here'):
        tiny.train(half, resume=True)
    assert tiny.train(half, resume=True, accept_changes=True).status == "finished"


def test_what_decides_no_number_may_change_freely(tiny, whole, half):
    changes = {
        "checkpoint.every_steps": 3,
        "observer.jsonl": {},
        "observer.console": {},
        "time_limit_seconds": 600.0,
        "data.workers": 0,
        "export.shard_bytes": 10**9,
        "output": str(half.parent),
    }
    assert tiny.train(half, changes, resume=True).status == "finished"
    assert tiny.weights(half) == tiny.weights(whole)


@pytest.mark.full
def test_what_does_not_fit_the_checkpoint_is_refused_though_accepted(tiny, half):
    with pytest.raises(Exception, match="misshapen"):
        tiny.train(half, {"model.hidden_size": 32}, resume=True, accept_changes=True)
