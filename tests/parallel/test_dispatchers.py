"""The built-in dispatchers keep the contract, and send the bytes that their modules state; on two ranks and on four."""

from __future__ import annotations

import pytest

from xtuner_core.builtin.dispatchers.rounds import Traffic
from xtuner_core.testing import DispatcherContract
from xtuner_core.testing.dispatched import EXPERTS_OF_A_RANK, D, K, routings

SIZES = {"float64": 8, "bfloat16": 2}


def by_case(answers, ranks):
    """Each routing with the rank, what it found, rows sent and arriving, and the bytes of a row with its weight."""
    for routing, found in zip(routings(ranks), answers, strict=True):
        chosen = [expert // EXPERTS_OF_A_RANK for row in routing.experts_AK for expert in row]
        for rank, each in enumerate(found):
            yield routing, each, routing.tokens[rank] * K, chosen.count(rank), SIZES[routing.dtype]


def total(collectives):
    found = {}
    for name, size in collectives:
        found[name] = found.get(name, 0) + size
    return found


class AllToAll(DispatcherContract):
    plugin, offer = "dispatchers", "all_to_all"

    def test_it_sends_the_bytes_that_its_module_states(self, answers):
        for routing, each, sent, arriving, size in by_case(answers, self.ranks):
            row, again = size * (D + 1), each["rounds"] > 1
            forward, backward = map(total, each["collectives"])
            counts = 8 * EXPERTS_OF_A_RANK * self.ranks
            assert forward == {"_allgather_base_": counts, "alltoall_base_": sent * row + arriving * size * D}, routing
            assert backward == {"alltoall_base_": arriving * row + sent * size * D + again * sent * row}, routing


class Naive(DispatcherContract):
    plugin, offer = "dispatchers", "naive"

    def test_it_sends_the_bytes_that_its_module_states(self, answers):
        for routing, each, *_, size in by_case(answers, self.ranks):
            most, rounds = max(1, *routing.tokens), each["rounds"]
            tokens, outputs = most * D * size * rounds, self.ranks * most * D * size * rounds
            counts, choices = 8 * (EXPERTS_OF_A_RANK * self.ranks + 1), most * K * (8 + size)
            forward, backward = map(total, each["collectives"])
            assert forward == {"_allgather_base_": counts + choices + tokens, "_reduce_scatter_base_": outputs}, routing
            weights, again = self.ranks * most * K * size, (rounds > 1) * tokens
            assert backward == {"_allgather_base_": tokens + again, "_reduce_scatter_base_": outputs + weights}, routing


class TestAllToAll(AllToAll):
    ranks = 2


class TestNaive(Naive):
    ranks = 2


@pytest.mark.full
class TestAllToAllOnFour(AllToAll):
    ranks = 4


@pytest.mark.full
class TestNaiveOnFour(Naive):
    ranks = 4


def test_a_round_takes_the_next_rows_whatever_their_source():
    # Three ranks; the last one's experts are wanted by all.
    traffic = Traffic([[0, 1, 4], [2, 0, 5], [0, 0, 2]], most=4)
    assert traffic.rounds == 3
    assert [traffic.received(2, turn) for turn in range(3)] == [[4, 0, 0], [0, 4, 0], [0, 1, 2]]
    assert [traffic.sent(1, turn)[2] for turn in range(3)] == [slice(2, 2), slice(2, 6), slice(6, 7)]
    assert [traffic.received(0, turn) for turn in range(3)] == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]


def test_nothing_to_send_is_one_round():
    assert Traffic([[0, 0], [0, 0]], most=1).rounds == 1
