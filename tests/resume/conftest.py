"""Tiny runs that are stopped, killed and gone on with, in this process and in processes of their own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from xtuner_core import Composition, Outcome, RunHandle, run
from xtuner_core.testing.tiny_run import compose_tiny, tiny_host

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STEPS = 8


def composed(changes: dict[str, Any] | None = None, **objects: object) -> Composition:
    """Eight steps of the tiny run, a checkpoint after every second."""
    keys = {"algorithm.steps": STEPS, "checkpoint.every_steps": 2, "observer.tensorboard": None, "data.cache": "cache"}
    return compose_tiny(keys | (changes or {}), host=tiny_host(objects=objects))


class StopAfter:
    """An observer that asks for a stop after a step, and notes what it is told."""

    def __init__(self, step: int | None = None, reason: str = "SIGTERM") -> None:
        self.handle, self.step, self.reason = RunHandle(), step, reason
        self.start: Any = None
        self.steps: list[int] = []

    def on_start(self, start: Any) -> None:
        self.start = start

    def on_step(self, step: Any) -> None:
        self.steps.append(step.result.step)
        if step.result.step == self.step:
            self.handle.stop(self.reason)

    def on_end(self, end: Any) -> None:
        self.end = end


def train(
    folder: Path | None,
    changes: dict[str, Any] | None = None,
    *,
    stop_after: int | None = None,
    observers: tuple[Any, ...] = (),
    objects: dict[str, object] | None = None,
    **more: Any,
) -> Outcome:
    """Run in this process."""
    stop = StopAfter(stop_after)
    composition = composed(changes, **(objects or {}))
    return run(composition, folder=folder, observers=[stop, *observers], handle=stop.handle, **more)


def weights(run_folder: Path) -> str:
    """Digest of the exported tensors."""
    return hashlib.sha256((run_folder / "export" / "model.safetensors").read_bytes()).hexdigest()


def numbers(run_folder: Path) -> list[dict[str, Any]]:
    """What every step computed; times left out."""
    names = ("step", "loss", "grad_norm", "learning_rate", "tokens", "statistics.expert_load", "metrics.skipped_steps")
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in names} for line in lines]


def log(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "log.jsonl").read_text().splitlines()]


def checkpoints(run_folder: Path) -> list[str]:
    return sorted(item.name for item in (run_folder / "checkpoints").iterdir())


@pytest.fixture(scope="session")
def working(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs here keep their cache of tokens."""
    return tmp_path_factory.mktemp("working")


@pytest.fixture(autouse=True)
def _away_from_the_repository(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(working)


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """Everything above, for tests to reach."""
    return SimpleNamespace(
        STEPS=STEPS,
        composed=composed,
        train=train,
        weights=weights,
        numbers=numbers,
        log=log,
        checkpoints=checkpoints,
        StopAfter=StopAfter,
    )


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, working: Path) -> Path:
    """The run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with contextlib.chdir(working):
        assert train(folder).status == "finished"
    return folder


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory, working: Path) -> Path:
    """Where `half` is copied from."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with contextlib.chdir(working):
        outcome = train(folder, stop_after=5)
    assert (outcome.status, outcome.steps) == ("stopped", 5)
    return folder


@pytest.fixture
def half(stopped: Path, tmp_path: Path) -> Path:
    """A run that was stopped after step 5, with checkpoints of steps 4 and 5."""
    return shutil.copytree(stopped, tmp_path / "run")


@pytest.fixture(scope="session")
def kill() -> Iterator[ModuleType]:
    """The module `benchmarks/kill.py`."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import kill

        yield kill
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="session")
def server(kill: ModuleType) -> Iterator[Any]:
    """Starts commands in processes of their own."""
    with kill.Server() as server:
        yield server


@pytest.fixture
def command(server: Any, kill: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Starts the tiny run of so many steps, `RUN` being its folder."""

    def start(steps: int, *arguments: str) -> Any:
        recipe = kill.tiny_recipe(tmp_path / "recipe.yaml", {"steps": steps})
        return server.start(["run", str(recipe), "--folder", "RUN", *arguments], tmp_path)

    return start
