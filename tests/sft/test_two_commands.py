"""Pre-training and then fine-tuning by two commands, on files, with a model of a few thousand parameters."""

from __future__ import annotations

import json

from xtuner_core.testing.tiny_chats import ANSWERS


def test_the_second_command_starts_from_the_weights_of_the_first_under_its_own_recipe(pretrained, tuned):
    plans = [json.loads((run.folder / "plan.json").read_text()) for run in (pretrained, tuned)]
    assert plans[1]["config"]["model"] == plans[0]["config"]["model"]
    assert plans[1]["config"]["optimizer"]["weight_decay"] == 0.0


def test_the_held_out_loss_falls_and_the_answers_are_right(tuned):
    summary = tuned.summary
    assert summary["held_out"]["loss"] < 0.1 * summary["held_out_at_start"]["loss"]
    samples = summary["samples"]
    assert len(samples) == 3
    for sample in samples:
        assert sample["text"] == sample["reference"] == ANSWERS[sample["prompt"]]
        assert sample["stop"] == "stop"


def test_evaluations_and_answers_come_every_few_steps(tuned):
    losses = {line["step"]: line.get("metrics.held_out.loss") for line in tuned.metrics}
    evaluated = {step: loss for step, loss in losses.items() if loss is not None}
    assert list(evaluated) == [20, 40, 60, 80]
    assert evaluated[80] == tuned.summary["held_out"]["loss"]
    files = sorted(path.name for path in (tuned.folder / "artifacts").glob("samples-*.jsonl"))
    assert files == ["samples-0.jsonl", "samples-20.jsonl", "samples-40.jsonl", "samples-60.jsonl", "samples-80.jsonl"]


def test_a_second_run_takes_its_tokens_from_the_cache_and_gives_the_same_losses(tuned, run, output, tuning):
    stores = [path for path in (output / ".cache" / "tokens").iterdir() if path.is_dir()]
    made = {path: (path / "header.json").stat().st_mtime_ns for path in stores}
    again, other = (run(output, *tuning, "algorithm.steps=2", "export.enabled=false") for _ in range(2))
    assert {path: (path / "header.json").stat().st_mtime_ns for path in stores} == made
    assert [line["loss"] for line in again.metrics] == [line["loss"] for line in other.metrics]
    assert again.metrics[0]["loss"] == tuned.metrics[0]["loss"]
