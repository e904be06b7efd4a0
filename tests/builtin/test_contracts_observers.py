"""The built-in observers keep the contract of observers, and the suite catches those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from xtuner_core.api import Provider
from xtuner_core.testing import ObserverContract, fake_plugin


class TestConsole(ObserverContract):
    plugin = "console"
    configs = ({"format": "text"}, {"format": "json", "every": 2})


class TestJsonl(ObserverContract):
    plugin = "jsonl"


class TestTensorBoard(ObserverContract):
    plugin = "tensorboard"
    configs = ({}, {"every": 2})


class Meddler:
    """Writes beside the run, clears what it is told, fails where a run failed early."""

    def __init__(self, config: None, *, folder: Path) -> None:
        self._folder = folder
        self._steps: int | None = None

    def on_start(self, start: Any) -> None:
        self._steps = start.steps
        (self._folder.parent / "index.txt").write_text("mine")

    def on_step(self, step: Any) -> None:
        step.metrics.clear()

    def on_end(self, end: Any) -> None:
        assert self._steps is not None


MEDDLER: Provider[Any] = Provider(slot="observer", name="meddler", factory=f"{__name__}:Meddler", summary="meddles")


class Suite(ObserverContract):
    plugin = "meddler"
    objects: ClassVar[dict[str, object]] = {"meddler": fake_plugin("meddler", MEDDLER)}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    return folder


def test_one_that_writes_beside_the_run_is_caught(home):
    with pytest.raises(AssertionError):
        Suite().test_it_writes_below_the_runs_folder_only(Meddler(None, folder=home), home)


def test_one_that_changes_what_it_is_told_is_caught(home):
    with pytest.raises(AssertionError):
        Suite().test_what_it_is_told_stays_as_it_was(Meddler(None, folder=home), home)


def test_one_that_cannot_end_before_it_started_is_caught(home):
    with pytest.raises(AssertionError):
        Suite().test_a_run_may_fail_before_its_first_step(Meddler(None, folder=home))
