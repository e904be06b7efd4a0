"""Steps that are not finite: what is said of them, and how many a run bears."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xtuner_core.builtin.cross_entropy.loss import TokenMean
from xtuner_core.config.root import EngineConfig
from xtuner_core.contracts.optimizer import OptimizedParameter
from xtuner_core.engine.non_finite import explain
from xtuner_core.errors import RunError


class Poisoned(TokenMean):
    """A loss that is not a number while it is told so."""

    poisoned = False

    def total(self, scores, batch):
        return super().total(scores, batch) * (float("nan") if self.poisoned else 1.0)


@pytest.fixture
def rig(toy):
    made = toy.rig(loss=Poisoned())
    made.batches = toy.split(toy.documents(), 2)
    return made


def poison(rig, *, settings=None):
    rig.engine.loss.poisoned = True
    rig.engine.settings = settings or rig.engine.settings


def kept(rig):
    """Every number that a step may change."""
    state = rig.optimizer.state_dict()
    moments = [tensor.clone() for states in state["parameters"].values() for tensor in states.values()]
    weights = [parameter.detach().clone() for parameter in rig.model.parameters()]
    return state["step"], len(rig.model.followed), [*moments, *weights]


def same(one, other):
    return one[:2] == other[:2] and all(torch.equal(a, b) for a, b in zip(one[2], other[2], strict=True))


def test_a_skipped_step_leaves_weights_optimizer_and_buffers_and_names_the_loss(rig):
    rig.engine.step(rig.batches, steps=9)
    before = kept(rig)
    poison(rig)
    result = rig.engine.step(rig.batches, steps=9)
    assert (result.skipped, result.reason) == (True, "the loss 'main' is nan")
    assert same(kept(rig), before)


def test_a_gradient_is_named_by_the_role_where_it_first_was_not_finite(rig):
    """Backward meets the head first, then the layer, whose output's gradient spreads to all below it."""

    def spoil(module, inputs, output):
        output.register_hook(lambda grad: grad * float("inf"))

    rig.model.inner.register_forward_hook(spoil)
    result = rig.engine.step(rig.batches, steps=9)
    assert result.skipped
    assert result.reason == "the gradient of role 'mlp.up' is not finite, first in inner.bias"
    assert torch.isfinite(torch.tensor(result.loss))


def test_a_norm_that_is_too_large_is_no_gradient_that_is_not_finite(rig):
    grads = [torch.full((2,), 1e30)]
    item = OptimizedParameter(name="a", role="head", layer=None, tensor=nn.Parameter(grads[0]))
    assert "its square is too large" in explain({"main": 1.0}, grads, [item])


def test_by_policy_such_a_step_fails_the_run_and_still_changes_nothing(rig):
    before = kept(rig)
    poison(rig, settings=EngineConfig(non_finite="fail"))
    with pytest.raises(RunError, match="step 1 was not applied: the loss 'main' is nan"):
        rig.engine.step(rig.batches, steps=9)
    assert same(kept(rig), before)


def test_as_many_in_a_row_as_the_settings_say_end_the_run(rig):
    poison(rig, settings=EngineConfig(max_skipped=3))
    rig.engine.step(rig.batches, steps=9)
    rig.engine.step(rig.batches, steps=9)
    rig.engine.loss.poisoned = False
    assert not rig.engine.step(rig.batches, steps=9).skipped
    rig.engine.loss.poisoned = True
    rig.engine.step(rig.batches, steps=9)
    rig.engine.step(rig.batches, steps=9)
    assert rig.engine.skipped_in_a_row == 2
    with pytest.raises(RunError, match="3 steps in a row were not applied, the last of them step 6"):
        rig.engine.step(rig.batches, steps=9)
