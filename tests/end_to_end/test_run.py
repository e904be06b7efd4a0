"""A finished run: what it leaves behind, and that `transformers` reads its weights as we do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from xtuner_core.builtin.kjv.text import documents
from xtuner_core.hf.checkpoint import open_checkpoint

TEXTS = (
    "In the beginning God created the heaven and the earth.",
    "Genesis 1\n\nAnd the earth was without form, and void; and darkness...\n",
    "  two  spaces, a tab\t, and — what no King James ever saw: 漢字 🙂",
    "",
)


def numbers(value: Any) -> Iterator[float]:
    """All numbers of nested data."""
    if isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, (int, float)):
        yield value


def test_a_finished_run_leaves_plan_metrics_log_summary_and_weights(finished):
    assert {path.name for path in finished.folder.iterdir()} == {
        "plan.json",
        "metrics.jsonl",
        "log.jsonl",
        "summary.json",
        "export",
        "tensorboard",
    }
    assert set(finished.weights) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert open_checkpoint(finished.export).complete


def test_the_command_says_how_it_went_and_where_the_weights_lie(finished):
    lines = finished.said.splitlines()
    assert lines[0].startswith("finished after 3 steps")
    assert any("bits per byte over 202181 bytes" in line for line in lines)
    assert lines[-1] == f"weights: {finished.export}"


def test_metrics_have_a_line_a_step_and_every_number_is_finite(finished):
    metrics = finished.metrics
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert not any(value in ("nan", "inf", "-inf") for line in metrics for value in line.values())
    assert all(isfinite(number) for number in numbers(metrics))
    for line in metrics:
        assert {"loss", "grad_norm", "learning_rate", "tokens_per_second", "auxiliary.balance"} <= line.keys()
        assert [sum(layer) for layer in line["statistics.expert_load"]] == [2 * line["tokens"]] * 2
    assert metrics[-1]["loss"] < metrics[0]["loss"]


def test_the_log_is_one_json_object_a_line_from_start_to_end(finished):
    events = [json.loads(line) for line in (finished.folder / "log.jsonl").read_text().splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("run started", "run ended")
    plan = json.loads((finished.folder / "plan.json").read_text())
    assert events[0]["plan"]["digest"] == plan["digest"]


def test_the_summary_counts_and_tells_the_share_of_those_who_watch(finished):
    summary = finished.summary
    assert (summary["status"], summary["steps"], summary["skipped_steps"]) == ("finished", 3, 0)
    assert summary["tokens"] == sum(line["tokens"] for line in finished.metrics)
    assert summary["held_out"]["documents"] == 59
    share = summary["overhead"]["seconds"] / summary["step_seconds"]
    assert summary["overhead"]["share"] == pytest.approx(share)
    assert all(isfinite(number) for number in numbers(summary))


def test_transformers_gives_the_same_logits(finished, pair_of):
    with pair_of(finished.export) as pair:
        texts = [pair.ours.tokenizer.encode(text)[:256] for text in documents("held_out")[:3]]
        random = torch.randint(4096, (200,), generator=torch.Generator().manual_seed(0)).tolist()
        for ids in (*texts, random):
            ours_TV, theirs_TV = pair.logits([0, *ids])
            assert ours_TV.std() > 0.1
            assert (ours_TV - theirs_TV).abs().max() < 1e-4


def test_transformers_encodes_and_decodes_alike(finished, pair_of):
    theirs = AutoTokenizer.from_pretrained(finished.export, local_files_only=True)
    with pair_of(finished.export) as pair:
        ours = pair.ours.tokenizer
        for text in TEXTS:
            ids = ours.encode(text)
            assert theirs.encode(text, add_special_tokens=False) == ids
            assert theirs.decode(ids) == ours.decode(ids) == text
        assert (theirs.eos_token_id, len(theirs)) == (ours.end_of_text, ours.size)


def test_a_run_repeated_from_its_folder_gives_the_same_losses_and_bytes(finished, run_to_the_end, tmp_path):
    again = run_to_the_end(tmp_path, "--from", str(finished.folder))
    for name in ("loss", "grad_norm", "auxiliary.balance", "statistics.expert_load"):
        assert [line[name] for line in again.metrics] == [line[name] for line in finished.metrics]
    assert again.summary["held_out"] == finished.summary["held_out"]
    assert again.weights == finished.weights
    assert (again.folder / "plan.json").read_bytes() == (finished.folder / "plan.json").read_bytes()
