"""A real pretrained model learns from real instructions in one command; what it is told apart from is no learning."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.full

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "first_fine_tune.py"
SMALL = ("--steps=6", "--tokens=512", "--train=16", "--held-out=2")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the converted model lies, once for all."""
    return tmp_path_factory.mktemp("first_fine_tune")


def fine_tuned(work: Path, *options: str) -> dict[str, Any]:
    output = work / "result.json"
    command = [sys.executable, SCRIPT, *SMALL, f"--work={work}", f"--output={output}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(output.read_text())


def test_held_out_loss_falls_and_transformers_computes_the_same_from_the_export(work):
    found = fine_tuned(work)
    assert found["steps"] == 6
    assert found["held_out_loss"]["after"] < 0.75 * found["held_out_loss"]["before"]
    assert found["logits_apart"] < 1e-5
    assert all(item["before"] != item["after"] for item in found["answers"][:3])


def test_a_learning_rate_of_zero_changes_neither_loss_nor_answers(work):
    found = fine_tuned(work, "--learning-rate=0")
    assert found["steps"] == 6
    assert found["held_out_loss"]["after"] == found["held_out_loss"]["before"]
    assert all(item["before"] == item["after"] for item in found["answers"])


def test_held_out_questions_are_none_of_those_trained_on(work):
    train, held_out = (
        {json.loads(line)["messages"][0]["content"] for line in (work / name).read_text().splitlines()}
        for name in ("train.jsonl", "held_out.jsonl")
    )
    assert (len(train), len(held_out)) == (64, 8)
    assert not train & held_out
