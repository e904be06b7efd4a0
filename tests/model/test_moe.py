"""The mixture's phases can be called, and its dispatcher replaced, from outside.

T tokens, D model width, K chosen experts, R = T * K routed rows.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig

from xtuner_core.contracts.batch import Document, pack
from xtuner_core.contracts.dispatcher import Dispatched
from xtuner_core.nn import LocalPlan, MoE, put, select, set_role

SMALL = {"vocab_size": 40, "hidden_size": 24, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8}


class RowForEachChoice(nn.Module):
    """Sends a token once for each expert it chose and weighs what comes back, as a dispatcher over ranks does."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds

    def prepare(self, weights_TK: Tensor, experts_TK: Tensor) -> LocalPlan:
        return LocalPlan(weights_TK, experts_TK, self.rounds)

    def dispatch(self, x_TD: Tensor, plan: LocalPlan, turn: int = 0) -> Dispatched:
        chosen_R1 = plan.experts_TK.reshape(-1, 1)[turn :: self.rounds]
        return Dispatched(x_TD.repeat_interleave(plan.experts_TK.shape[1], dim=0)[turn :: self.rounds], chosen_R1, None)

    def combine(self, rows_ND: Tensor, plan: LocalPlan, turn: int = 0) -> Tensor:
        rows_RD = rows_ND.new_zeros(plan.experts_TK.numel(), rows_ND.shape[1])
        rows_RD[turn :: self.rounds] = rows_ND
        return (rows_RD.view(*plan.experts_TK.shape, -1) * plan.weights_TK[..., None]).sum(1)


@pytest.fixture
def model(make_model) -> nn.Module:
    return make_model(Qwen3MoeConfig(**SMALL), spread=0.2)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    batch = pack([Document.of(torch.arange(11)), Document.of(torch.arange(20, 26))])
    model.zero_grad()
    model.head(model(batch).predictions[0].hidden_TD, batch.labels)[0].sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_dispatcher_put_in_by_role_changes_nothing_but_rounding(model, rounds):
    expected = gradients(model)
    for item in select(model, "moe.dispatch"):
        put(model, item.name, set_role(RowForEachChoice(rounds), item.role))
    found = gradients(model)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-13)


def test_the_phases_in_order_are_the_forward_pass(model):
    block = model.layers[0].feed_forward
    assert isinstance(block, MoE)
    x_TD = torch.randn(9, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    routing = block.route(x_TD)
    plan = block.prepare(routing)
    y_TD = block.combine(block.apply_experts(block.dispatch(x_TD, plan)), plan)
    whole_TD, auxiliary = block(x_TD)
    assert torch.equal(y_TD, whole_TD)
    assert auxiliary is None


def test_every_expert_chosen_makes_a_dense_network_whose_bfloat16_is_near_its_float32(make_model):
    config = Qwen3MoeConfig(**SMALL, num_experts=4, top_k=4)
    batch = pack([Document.of(torch.arange(30))])
    exact_TD, short_TD = (
        make_model(config, dtype, spread=0.2)(batch).predictions[0].hidden_TD
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert short_TD.dtype == torch.bfloat16
    assert (short_TD - exact_TD).norm() < 0.03 * exact_TD.norm()
