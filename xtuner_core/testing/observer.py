"""The contract suite of observers: told a whole run, they change nothing and write below its folder only."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from math import inf, nan
from pathlib import Path
from typing import Any, ClassVar

import pytest

from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.observer import Observer, RunEnd, RunStart, RunStep
from xtuner_core.host import Host
from xtuner_core.registry import Offer
from xtuner_core.testing.suite import OfferSuite

STEPS = 5


class ObserverContract(OfferSuite):
    """What holds for every observer."""

    slot: ClassVar[str] = "observer"

    @classmethod
    def _pick(cls, offered: Offer, case: int) -> Any:
        return {"watched": {"name": offered.name, **cls.configs[case]}}

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        """The run's folder, in one that must stay otherwise empty."""
        folder = tmp_path / "runs" / "a"
        folder.mkdir(parents=True)
        return folder

    @pytest.fixture
    def observer(self, host: Host, offered: Offer, case: int, home: Path) -> Observer:
        """The observer of a case."""
        return self._make(host, offered, case, home)

    def _make(self, host: Host, offered: Offer, case: int, home: Path) -> Observer:
        made: Observer = self.parts(host, offered, case).make("observer.watched", folder=home)
        return made

    def test_it_is_told_a_run_to_its_end(self, observer: Observer, home: Path) -> None:
        """Steps that were skipped, figures that are not finite or not known among them."""
        live(observer, home, status="finished")

    @pytest.mark.parametrize("status", ["stopped", "failed"])
    def test_a_run_may_end_at_any_step(self, observer: Observer, home: Path, status: str) -> None:
        """Without having come to the steps that were announced."""
        live(observer, home, status=status, last=2)

    def test_a_run_may_fail_before_its_first_step(self, observer: Observer) -> None:
        """Then `on_end` is all that it is told."""
        observer.on_end(end("failed", 0))

    def test_what_it_is_told_stays_as_it_was(self, observer: Observer, home: Path) -> None:
        """Other observers are told the same objects."""
        told = [start(home), *map(step, range(1, STEPS + 1)), end("finished", STEPS)]
        before = deepcopy([repr(each) for each in told])
        observer.on_start(told[0])  # type: ignore[arg-type]
        for each in told[1:-1]:
            observer.on_step(each)  # type: ignore[arg-type]
        observer.on_end(told[-1])  # type: ignore[arg-type]
        assert [repr(each) for each in told] == before

    def test_it_writes_below_the_runs_folder_only(self, observer: Observer, home: Path) -> None:
        """Whatever it writes."""
        live(observer, home, status="finished")
        outside = home.parents[1]
        assert [path.name for path in outside.iterdir()] == ["runs"]
        assert [path.name for path in home.parent.iterdir()] == [home.name]

    def test_it_follows_a_run_that_is_resumed(self, host: Host, offered: Offer, case: int, home: Path) -> None:
        """A new process, a new observer, the same folder: from the step after the checkpoint on."""
        live(self._make(host, offered, case, home), home, status="stopped", last=4)
        live(self._make(host, offered, case, home), home, status="finished", first=3)


def live(observer: Observer, home: Path, *, status: str, first: int = 1, last: int = STEPS) -> None:
    """Lead an observer through a run."""
    observer.on_start(start(home, done=first - 1))
    for number in range(first, last + 1):
        observer.on_step(step(number))
    observer.on_end(end(status, last))


def start(home: Path, done: int = 0) -> RunStart:
    """What is known before the first step."""
    summary = {"model": "tiny", "parameters": 1000, "operators": [{"operator": "attention", "sizes": {"heads": 2}}]}
    return RunStart(folder=home, steps=STEPS, steps_done=done, summary=summary)


def step(number: int) -> RunStep:
    """A step; the third is skipped, with a loss that is not finite."""
    skipped = number == 3
    result = StepResult(
        step=number,
        loss=nan if skipped else 3.0 / number,
        grad_norm=inf if skipped else 1.0,
        learning_rate=1e-3,
        tokens=128,
        seconds=0.25,
        auxiliary={"balance": 0.01},
        statistics={"expert_load": [[3.0, 5.0], [4.0, 4.0]]},
        skipped=skipped,
        times={"forward": 0.1, "backward": 0.1},
    )
    return RunStep(
        result=result,
        steps=STEPS,
        tokens_per_second=512.0,
        model_flops_per_second=1e9,
        mfu=None if number % 2 else 0.5,
        memory_peak_bytes=1 << 20,
        metrics=dict(_metrics(number)),
    )


def _metrics(number: int) -> Iterator[tuple[str, float]]:
    yield "expert_imbalance.0", 1.25
    if number % 2 == 0:
        yield "held_out.loss", 2.0 / number


def end(status: str, steps: int) -> RunEnd:
    """How it ended."""
    samples = [{"prompt": "abra", "text": "cadabra", "stop": "length"}]
    summary: dict[str, Any] = {"loss": 1.0, "samples": samples, "export": None, "reason": None}
    return RunEnd(status=status, steps=steps, seconds=1.5, summary=summary if status == "finished" else {})
