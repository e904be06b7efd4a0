"""The contract suite of schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

from xtuner_core.contracts.optimizer import Schedule
from xtuner_core.errors import ConfigError
from xtuner_core.host import Host
from xtuner_core.registry import Offer
from xtuner_core.testing.suite import OfferSuite

Make = Callable[[], Schedule]
LENGTHS = (1, 2, 7, 100, 1000)
"""Steps of the runs that are looked at; a schedule may refuse some of them."""


class ScheduleContract(OfferSuite):
    """What holds for every schedule: a factor from 0 to 1 that is a function of the step and the run's length."""

    slot: ClassVar[str] = "schedule"

    @pytest.fixture
    def make(self, host: Host, offered: Offer, case: int) -> Make:
        """Builds the schedule of a case anew."""
        parts = self.parts(host, offered, case)
        return lambda: parts.make("schedule")

    def test_it_fits_some_run_and_refuses_the_others_at_their_first_step(self, make: Make) -> None:
        """With a `ConfigError`; a run that began is never refused."""
        fitting = accepted(make)
        assert fitting
        for steps in fitting:
            factors(make(), steps)

    def test_it_lies_between_0_and_1_and_reaches_1_at_most(self, make: Make) -> None:
        """The optimizer's learning rate is the peak."""
        for steps in accepted(make):
            found = factors(make(), steps)
            assert all(0 <= factor <= 1 for factor in found), steps

    def test_the_first_step_learns(self, make: Make) -> None:
        """A warm-up begins above 0."""
        for steps in accepted(make):
            assert steps == 1 or make()(1, steps) > 0, steps

    def test_a_resumed_run_gets_the_same_factors(self, make: Make) -> None:
        """Whatever was asked before, and in whatever order."""
        for steps in accepted(make):
            found, fresh = factors(make(), steps), make()
            again = [fresh(step, steps) for step in range(steps, 0, -1)]
            assert again[::-1] == found
            assert make()(steps // 2 + 1, steps) == found[steps // 2]


def accepted(make: Make) -> list[int]:
    """Lengths of runs that the schedule does not refuse."""
    fitting = []
    for steps in LENGTHS:
        try:
            make()(1, steps)
        except ConfigError:
            continue
        fitting.append(steps)
    return fitting


def factors(schedule: Schedule, steps: int) -> list[float]:
    """All factors of a run."""
    return [schedule(step, steps) for step in range(1, steps + 1)]
