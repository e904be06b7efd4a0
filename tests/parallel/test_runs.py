"""Whole runs over ranks from the command line: the same losses, checkpoints for any layout, failures survived."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = (
    "model=qwen3_moe:tiny",
    "dataset=kjv",
    "model.num_layers=2",
    "model.hidden_size=32",
    "model.num_heads=4",
    "model.num_kv_heads=2",
    "model.head_dim=8",
    "model.moe_intermediate_size=16",
    "model.num_experts=4",
    "algorithm.steps=8",
    "algorithm.tokens_per_step=512",
    "algorithm.micro_batch_tokens=128",
    "algorithm.document_tokens=64",
    "algorithm.evaluate_tokens=512",
    "algorithm.compare_xz=false",
    "algorithm.sample_prompts=[]",
    "checkpoint.every_steps=2",
    "observer.tensorboard=null",
    *(f"precision.{name}=float64" for name in ("parameter", "compute", "reduction", "state")),
)
LAYOUTS = {
    "fsdp_ep": ("--nproc", "2", "parallelism.fsdp={}", "parallelism.expert_parallel.size=2"),
    "ulysses": ("--nproc", "2", "parallelism.ulysses.size=2"),
}


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    cache = f"data.cache={folder.parent.parent / 'cache'}"
    command = [
        sys.executable,
        "-m",
        "xtuner_core",
        "run",
        "precision=fp32",
        *TINY,
        cache,
        "--folder",
        str(folder),
        *more,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder.parent, env=environment
    )


def finished(process: subprocess.Popen[str]) -> str:
    told, _ = process.communicate(timeout=240)
    assert process.returncode == 0, told[-4000:]
    return told


def losses(folder: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row and "step" in row}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    finished(start(folder))
    return losses(folder)


@pytest.mark.full
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_over_ranks_has_the_losses_of_one_process(tmp_path, alone, layout):
    finished(start(tmp_path / "run", *LAYOUTS[layout]))
    assert losses(tmp_path / "run") == pytest.approx(alone, rel=1e-9)


@pytest.mark.full
def test_a_checkpoint_of_one_layout_goes_on_in_others(tmp_path, alone):
    folder = tmp_path / "run"
    finished(start(folder, *LAYOUTS["fsdp_ep"]))
    for name, layout in {"one": (), **LAYOUTS}.items():
        copy = tmp_path / name
        subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)
        (copy / "summary.json").unlink()
        subprocess.run(["rm", "-rf", str(copy / "checkpoints" / "step-00000008"), str(copy / "export")], check=True)
        finished(start(copy, "--resume", "--accept-changes", *layout))
        assert losses(copy) == pytest.approx(alone, rel=1e-9), name


@pytest.mark.full
def test_a_killed_rank_costs_nothing_but_time(tmp_path, alone):
    folder = tmp_path / "run"
    process = start(folder, *LAYOUTS["fsdp_ep"], "--max-restarts", "1")
    checkpoint, victim = folder / "checkpoints" / "step-00000004", folder / "ranks" / "rank-1.json"
    limit = time.monotonic() + 200
    while not checkpoint.exists():
        assert time.monotonic() < limit
        assert process.poll() is None, process.communicate()[0][-4000:]
        time.sleep(0.01)
    found = subprocess.run(["pgrep", "-f", str(victim)], capture_output=True, text=True, check=True)
    os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
    told = finished(process)
    assert "rank 1" in told
    assert losses(folder) == pytest.approx(alone, rel=1e-9)
