"""The choice of experts is made once, whoever makes it, and a dispatcher's plan with it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import CheckpointError

from xtuner_core.builtin.cross_entropy.loss import TokenMean
from xtuner_core.nn import LocalDispatcher, Router, Routing, select
from xtuner_core.testing.documents import PACKINGS, random_documents
from xtuner_core.testing.steps import differentiate


class Fickle(Router):
    """Every second time it chooses the experts that it likes least, for other weights."""

    calls = 0

    def forward(self, x_TD):
        self.calls += 1
        routing = super().forward(x_TD)
        if self.calls % 2:
            return routing
        experts_TK = routing.probs_TE.topk(self.top_k, largest=False).indices
        return Routing(routing.probs_TE.gather(1, experts_TK), experts_TK, routing.probs_TE, routing.logits_TE)


class Waiting(LocalDispatcher):
    """Counts how often it is asked for a plan, which may wait for the device."""

    plans = 0

    def prepare(self, weights_TK, experts_TK):
        self.plans += 1
        return super().prepare(weights_TK, experts_TK)


@pytest.fixture
def plain(make_model):
    model = make_model("tiny")
    for role, kind in (("moe.router", Fickle), ("moe.dispatch", Waiting)):
        for item in select(model, role):
            item.module.__class__ = kind
    return model


@pytest.fixture
def batches():
    return PACKINGS[1](random_documents(200), 1)


@pytest.mark.parametrize("name", ["norms and activations", "feed-forward", "whole layers"])
def test_a_router_that_would_choose_otherwise_is_asked_once(plain, recomputed, settings, batches, name):
    model = recomputed(plain, settings[name])
    expected, found = (differentiate(each, TokenMean(), batches) for each in (plain, model))
    for key, tensor in expected.tensors().items():
        assert torch.equal(found.tensors()[key], tensor), key
    assert [item.module.calls for item in select(model, "moe.router")] == [1]
    assert [item.module.plans for item in select(model, "moe.dispatch")] == [1]


def test_that_router_shows_where_a_recomputation_asks_it_again(plain, recomputed, settings, batches):
    model = recomputed(plain, settings["whole layers"])
    for item in select(model, "moe.router"):
        item.module.__class__ = Fickle
    with pytest.raises(CheckpointError):
        differentiate(model, TokenMean(), batches)


def test_each_token_is_counted_once(plain, recomputed, settings, batches):
    model = recomputed(plain, settings["whole layers"])
    load_LE = differentiate(model, TokenMean(), batches).statistics["expert_load"]
    assert load_LE.sum().item() == 2 * batches[0].tokens
