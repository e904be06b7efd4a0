"""Master weights: what the optimizer updates where forward and backward work in a shorter dtype."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from xtuner_core.engine.gradients import GradientSum, gradient_norm
from xtuner_core.engine.masters import master_weights
from xtuner_core.errors import RunError


def test_one_dtype_needs_no_copies(toy):
    model, followers = toy.built(toy.FP64)
    masters = master_weights(model, toy.FP64, followers)
    assert masters.copies == ()
    for item, (name, parameter) in zip(masters.optimized, model.named_parameters(), strict=True):
        assert item.tensor is parameter
        assert item.name == name


def test_parameters_carry_role_and_layer(toy):
    model, followers = toy.built(toy.FP64)
    masters = master_weights(model, toy.FP64, followers)
    assert {item.name: item.role for item in masters.optimized} == {
        "embed.weight": "embed",
        "inner.weight": "mlp.up",
        "inner.bias": "mlp.up",
        "head.weight": "head",
    }


def test_masters_keep_what_the_model_was_filled_with_in_full(toy):
    model, followers = toy.built(toy.BF16)
    exact = {name: p.detach().clone() for name, p in model.named_parameters()}
    masters = master_weights(model, toy.BF16, followers)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    for item in masters.optimized:
        assert item.tensor.dtype == torch.float32
        assert torch.equal(item.tensor, exact[item.name])
        assert torch.equal(dict(model.named_parameters())[item.name], exact[item.name].bfloat16())
        assert not torch.equal(item.tensor, item.tensor.bfloat16().float())


def test_a_parameter_made_in_a_dtype_of_its_own_keeps_it_everywhere(toy):
    rig = toy.rig(toy.BF16, exact=torch.float32)
    parameters = dict(rig.model.named_parameters())
    found = {item.name: item.tensor for item in rig.engine.masters.optimized}
    assert parameters["inner.weight"].dtype == torch.float32
    assert found["inner.weight"] is parameters["inner.weight"]
    assert parameters["embed.weight"].dtype == torch.bfloat16
    before = parameters["inner.weight"].detach().clone()
    rig.engine.step(toy.split(toy.documents(), 2), steps=1)
    assert not torch.equal(parameters["inner.weight"], before)


def test_a_tied_parameter_is_optimized_once(toy):
    rig = toy.rig(toy.BF16, tied=True)
    names = [item.name for item in rig.engine.masters.optimized]
    assert names == ["embed.weight", "inner.weight", "inner.bias"]
    rig.engine.step(toy.split(toy.documents(), 2), steps=1)
    assert rig.model.head.weight is rig.model.embed.weight
    assert torch.equal(rig.model.embed.weight, rig.engine.masters.optimized[0].tensor.bfloat16())


def test_frozen_parameters_are_computed_with_and_not_optimized(toy):
    def frozen(model):
        model.embed.weight.requires_grad_(False)
        return toy.filled(model)

    model, followers = toy.built(toy.BF16, frozen)
    masters = master_weights(model, toy.BF16, followers)
    assert "embed.weight" not in [item.name for item in masters.optimized]
    assert model.embed.weight.dtype == torch.bfloat16


def test_a_model_without_trainable_parameters_is_refused(toy):
    model, followers = toy.built(toy.FP64, lambda model: toy.filled(model).requires_grad_(False))
    with pytest.raises(RunError, match="no parameter"):
        master_weights(model, toy.FP64, followers)


def test_steps_in_bfloat16_equal_a_reference_with_float32_masters(toy):
    """Forward and backward in bfloat16, gradients added up and weights updated in float32."""
    rig = toy.rig(toy.BF16, learning_rate=1e-4, weight_decay=0.0)
    masters = {item.name: item.tensor.clone() for item in rig.engine.masters.optimized}
    twin = toy.rig(toy.BF16, weight_decay=0.0)
    optimizer = torch.optim.AdamW(
        [nn.Parameter(m) for m in masters.values()], lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0
    )
    leaves = optimizer.param_groups[0]["params"]
    for seed in range(5):
        batches = toy.split(toy.documents(seed=seed), 3)
        rig.engine.step(batches, steps=5)
        _reference_step(toy, twin.model, dict(zip(masters, leaves, strict=True)), batches)
        optimizer.step()
    for item, leaf in zip(rig.engine.masters.optimized, leaves, strict=True):
        torch.testing.assert_close(item.tensor, leaf.detach(), rtol=1e-6, atol=1e-8)
    for name, parameter in rig.model.named_parameters():
        master = next(item.tensor for item in rig.engine.masters.optimized if item.name == name)
        assert torch.equal(parameter, master.bfloat16())


def _reference_step(toy, model, leaves, batches):
    """Gradients of each micro-batch taken apart, in the twin's bfloat16, and added in float32."""
    parameters = dict(model.named_parameters())
    weight = sum(float((b.weights * (b.labels >= 0)).sum()) for b in batches)
    tokens = sum(b.tokens for b in batches)
    for leaf in leaves.values():
        leaf.grad = torch.zeros_like(leaf)
    for name, leaf in leaves.items():
        parameters[name].data = leaf.detach().bfloat16()
    for batch in batches:
        output = model(batch)
        log_probs_T, _ = model.head(output.predictions[0].hidden_TD, batch.labels)
        loss = -(log_probs_T * batch.weights).sum() / weight
        size = toy.COEFFICIENT / tokens * output.auxiliary[0].total
        grads = torch.autograd.grad(loss + size, list(parameters.values()))
        for name, grad in zip(parameters, grads, strict=True):
            leaves[name].grad += grad.float()


def test_updates_too_small_for_bfloat16_add_up_in_the_masters(toy):
    rig = toy.rig(toy.BF16, learning_rate=1e-5, weight_decay=0.0)
    before = rig.model.inner.weight.detach().clone()
    start = next(i.tensor.clone() for i in rig.engine.masters.optimized if i.name == "inner.weight")
    batch = toy.split(toy.documents(), 1)
    for _ in range(4):
        rig.engine.step(batch, steps=4)
    now = next(i.tensor for i in rig.engine.masters.optimized if i.name == "inner.weight")
    moved = (now - start).abs()
    assert bool((moved > 2e-5).any())
    assert bool((moved < 5e-5).all())
    assert torch.equal(rig.model.inner.weight, now.bfloat16())
    assert (rig.model.inner.weight != before).float().mean() < 0.5


def test_gradients_are_added_up_in_the_reduction_dtype():
    parameter = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    exact = GradientSum([parameter], [torch.float32])
    for _ in range(1000):
        (parameter * 0.001).sum().backward()
        assert parameter.grad is None
    assert exact.sums()[0].item() == pytest.approx(1000 * torch.tensor(0.001).bfloat16().item(), rel=1e-5)
    exact.clear()
    assert torch.equal(exact.sums()[0], torch.zeros(1))


def test_gradients_in_the_parameters_own_dtype_are_not_copied():
    parameter = nn.Parameter(torch.ones(3))
    gradients = GradientSum([parameter], [torch.float32])
    parameter.sum().backward()
    assert gradients.sums()[0] is parameter.grad


def test_a_parameter_that_nothing_reaches_has_a_gradient_of_zero():
    parameter = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    found = GradientSum([parameter], [torch.float32]).sums()[0]
    assert torch.equal(found, torch.zeros(3))


def test_the_norm_is_taken_over_all_gradients_at_once():
    grads = [torch.randn(4, 3), torch.randn(7).bfloat16(), torch.randn(())]
    whole = torch.cat([grad.double().flatten() for grad in grads]).norm()
    assert gradient_norm(grads).item() == pytest.approx(whole.item(), rel=1e-6)


def test_the_split_changes_only_rounding_in_bfloat16(toy):
    docs = toy.documents()
    one, many = toy.rig(toy.BF16), toy.rig(toy.BF16)
    first = one.engine.step(toy.split(docs, 1), steps=1)
    second = many.engine.step(toy.split(docs, 12), steps=1)
    assert first.loss == pytest.approx(second.loss, rel=2**-8)
    assert first.grad_norm == pytest.approx(second.grad_norm, rel=2**-6)


def test_the_reduction_dtype_is_what_the_optimizer_is_given(toy):
    policy = replace(toy.BF16, reduction=torch.bfloat16)
    for chosen, expected in ((toy.BF16, torch.float32), (policy, torch.bfloat16)):
        rig = toy.rig(chosen)
        given = []
        rig.optimizer.step = lambda grads, given=given, **_: given.extend(grads)
        rig.engine.step(toy.split(toy.documents(), 2), steps=1)
        assert {grad.dtype for grad in given} == {expected}
