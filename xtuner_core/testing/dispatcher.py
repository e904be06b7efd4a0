"""The contract suite of dispatchers: over real ranks and routings that are hard to serve, against one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import pytest

from xtuner_core.host import Host
from xtuner_core.registry import Offer
from xtuner_core.testing.dispatched import Routing, answer, routings
from xtuner_core.testing.ranks import run_ranks
from xtuner_core.testing.suite import OfferSuite

EXACT, ROUNDED = 1e-12, 2e-2


class DispatcherContract(OfferSuite):
    """What holds for every dispatcher, on `ranks` processes that are started once for all of it."""

    slot: ClassVar[str] = "dispatcher"
    ranks: ClassVar[int] = 2

    @pytest.fixture(scope="class")
    @classmethod
    def answers(cls, host: Host, offered: Offer, case: int) -> list[list[dict[str, Any]]]:
        """What each rank found, by case and rank (`testing.dispatched.answer`)."""
        payload = {**cls._made(host, offered, case), "cases": list(routings(cls.ranks))}
        found = run_ranks(cls.ranks, "xtuner_core.testing.dispatched:serve", payload)
        return [list(each) for each in zip(*found, strict=True)]

    @classmethod
    def _made(cls, host: Host, offered: Offer, case: int) -> Mapping[str, Any]:
        """How another process makes the dispatcher."""
        config = cls.parts(host, offered, case).config(cls.slot)
        kind = type(config)
        return {
            "factory": offered.provider.factory,
            "plugin": offered.plugin,
            "distribution": offered.distribution,
            "config": None if config is None else f"{kind.__module__}:{kind.__qualname__}",
            "values": None if config is None else asdict(config),
        }

    def test_output_and_gradients_are_those_of_one_process(self, answers: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Within 1e-12 in float64, whatever the routing, in one round and in several."""
        wrong = [
            (each["case"], each["rounds"], rank, each["errors"])
            for ranks in answers
            for rank, each in enumerate(ranks)
            if not max(each["errors"].values()) < (EXACT if "bfloat16" not in each["case"] else ROUNDED)
        ]
        assert wrong == []

    def test_no_round_is_larger_than_its_bound(self, answers: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Where the group has one."""
        sizes = [(each["case"], each["rows"], each["most"]) for ranks in answers for each in ranks]
        assert [f"{case}: {rows} rows, {most} at most" for case, rows, most in sizes if rows > most] == []

    def test_ranks_agree_on_the_number_of_rounds(self, answers: Sequence[Sequence[dict[str, Any]]]) -> None:
        """And some case needs several."""
        rounds = [{each["rounds"] for each in ranks} for ranks in answers]
        assert [each for each in rounds if len(each) > 1] == []
        assert any(max(each) > 1 for each in rounds)

    def test_the_host_waits_once_forward_and_never_backward(self, answers: Sequence[Sequence[dict[str, Any]]]) -> None:
        """At most, of a layer."""
        waits = [each["waits"] for ranks in answers for each in ranks]
        assert [each for each in waits if len(each[0]) > 1 or each[1]] == []

    def test_a_rank_that_is_alone_calls_no_collective(self, host: Host, offered: Offer, case: int) -> None:
        """And computes the same."""
        made = self._made(host, offered, case)
        for routing in (Routing("alone", [4], [[0, 1], [1, 1], [0, 0], [1, 0]], each) for each in (None, 0.3)):
            found = answer(made, routing, None)
            assert max(found["errors"].values()) < EXACT, found
            assert found["collectives"] == [[], []]
