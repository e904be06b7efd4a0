"""The suite of dispatchers finds those that are wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xtuner_core.contracts.dispatcher import Dispatched, ExpertGroup
from xtuner_core.nn import LocalDispatcher, LocalPlan
from xtuner_core.testing import DispatcherContract
from xtuner_core.testing.dispatched import Routing, answer

ROUTING = Routing("alone", [4], [[0, 1], [1, 1], [0, 0], [1, 0]], 0.5)


class Local(LocalDispatcher):
    """Sends nothing and works in one round: right on one rank where there is no bound."""

    row_experts = None

    def __init__(self, config: None, group: ExpertGroup) -> None:
        super().__init__()


class Drops(Local):
    """Leaves the last token out."""

    def combine(self, rows_ND: Tensor, plan: LocalPlan, turn: int = 0) -> Tensor:
        return rows_ND * (torch.arange(len(rows_ND)) < len(rows_ND) - 1).unsqueeze(1)


class Unweighted(Local):
    """Cuts the weights' gradient off."""

    def prepare(self, weights_TK: Tensor, experts_TK: Tensor) -> LocalPlan:
        return super().prepare(weights_TK.detach(), experts_TK)


class Hesitant(Local):
    """Asks the device twice."""

    def prepare(self, weights_TK: Tensor, experts_TK: Tensor) -> LocalPlan:
        assert experts_TK.max().item() >= experts_TK.min().item()
        return super().prepare(weights_TK, experts_TK)


class AllAtOnce(Local):
    """Takes all rows at once, and says that it needs two rounds."""

    def prepare(self, weights_TK: Tensor, experts_TK: Tensor) -> LocalPlan:
        return super().prepare(weights_TK, experts_TK)._replace(rounds=2)

    def dispatch(self, x_TD: Tensor, plan: LocalPlan, turn: int = 0) -> Dispatched:
        rows = slice(0, None if turn == 0 else 0)
        return Dispatched(x_TD[rows], plan.experts_TK[rows], plan.weights_TK[rows])

    def combine(self, rows_ND: Tensor, plan: LocalPlan, turn: int = 0) -> Tensor:
        return torch.cat([rows_ND, rows_ND.new_zeros(len(plan.experts_TK) - len(rows_ND), rows_ND.shape[1])])


def found(kind: type[Local], imbalance: float = 0.5):
    made = {"factory": kind, "plugin": "mine", "distribution": "mine", "config": None}
    return [[answer(made, ROUTING._replace(imbalance=imbalance), None)]]


@pytest.fixture
def suite() -> DispatcherContract:
    return DispatcherContract()


def test_a_right_one_passes(suite):
    answers = found(Local)
    suite.test_output_and_gradients_are_those_of_one_process(answers)
    suite.test_the_host_waits_once_forward_and_never_backward(answers)


def test_one_that_drops_tokens_is_caught(suite):
    with pytest.raises(AssertionError, match="alone"):
        suite.test_output_and_gradients_are_those_of_one_process(found(Drops))


def test_one_that_cuts_a_gradient_off_is_caught():
    with pytest.raises(AssertionError, match="no gradient reaches"):
        found(Unweighted)


def test_one_that_waits_for_the_device_twice_is_caught(suite):
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        suite.test_the_host_waits_once_forward_and_never_backward(found(Hesitant))


def test_one_that_breaks_the_bound_is_caught(suite):
    answers = found(AllAtOnce, imbalance=0.25)
    suite.test_output_and_gradients_are_those_of_one_process(answers)
    with pytest.raises(AssertionError, match="4 rows, 2 at most"):
        suite.test_no_round_is_larger_than_its_bound(answers)


def test_ranks_that_disagree_on_rounds_are_caught(suite):
    (one,), (two,) = found(Local), found(AllAtOnce)
    with pytest.raises(AssertionError):
        suite.test_ranks_agree_on_the_number_of_rounds([[*one, *two]])
