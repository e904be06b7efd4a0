"""Runs of the command in processes and folders of their own, and one finished run that the tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from xtuner_core.cli.main import main
from xtuner_core.contracts.batch import Document, pack
from xtuner_core.engine.loading import load_model

SHORT = (
    "algorithm.steps=3",
    "algorithm.tokens_per_step=512",
    "algorithm.micro_batch_tokens=512",
    "algorithm.document_tokens=128",
    "algorithm.evaluate_overlap=0",
    "algorithm.compare_xz=false",
    "algorithm.sample_prompts=[]",
)
"""The embedded default, cut down to a few seconds."""
NARROW = ("model.hidden_size=64", "model.num_layers=2", "model.num_experts=4", "model.moe_intermediate_size=32")
"""Its model, so small that scoring the held-out text takes a second."""


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path
    said: str = ""
    """What the command wrote to standard output."""

    @property
    def export(self) -> Path:
        return self.folder / "export"

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def weights(self) -> dict[str, bytes]:
        """Every exported file by name."""
        return {file.name: file.read_bytes() for file in self.export.iterdir()}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "xtuner_core", *arguments]


def plain_environment() -> dict[str, str]:
    """Two threads, as on the smallest machine that is promised anything."""
    return {**os.environ, "OMP_NUM_THREADS": "2"}


def finished_run(folder: Path, *arguments: str, timeout: float = 120) -> Run:
    """Run to the end in a process whose working folder is `folder`; all goes well."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command("run", *arguments),
        cwd=folder,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    (home,) = (folder / "runs").glob("[!.]*")
    return Run(home, done.stdout)


@pytest.fixture(scope="session")
def short() -> tuple[str, ...]:
    """Values of a run that takes a few seconds."""
    return (*SHORT, *NARROW)


@pytest.fixture(scope="session")
def run_to_the_end() -> Callable[..., Run]:
    return finished_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, short: tuple[str, ...]) -> Run:
    """Three steps of the embedded default on a narrow model."""
    return finished_run(tmp_path_factory.mktemp("finished"), *short)


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The command `run` in this process; gives its exit code and what it wrote to standard error."""
    for name in ("TORCH_DEVICE_BACKEND_AUTOLOAD", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "put back afterwards")

    def call(*arguments: str) -> tuple[int, str]:
        code = main(["run", *arguments])
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def popen() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command `run`; whatever is still running at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command("run", *arguments), cwd=folder, env=plain_environment(), **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@dataclass(frozen=True)
class Pair:
    """Our model and that of `transformers`, both from one folder, in float32 on the CPU."""

    ours: Any
    theirs: Any

    @torch.no_grad()
    def logits(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [T, V] of both over one document."""
        model = self.ours.model
        hidden_TD = model(pack([Document.of(ids)])).predictions[0].hidden_TD
        return model.head(hidden_TD), self.theirs(input_ids=torch.tensor([ids])).logits[0]


@pytest.fixture(scope="session")
def pair_of() -> Callable[[Path], Any]:
    """Loads an exported folder twice."""

    @contextmanager
    def load(export: Path) -> Iterator[Pair]:
        theirs = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32, local_files_only=True).eval()
        with load_model(export, overrides=["device=cpu", "precision=fp32"]) as ours:
            ours.model.eval()
            yield Pair(ours, theirs)

    return load
