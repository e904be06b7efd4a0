"""One optimizer step: what it computes, whatever the split, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xtuner_core.builtin.cross_entropy.loss import TokenMean
from xtuner_core.contracts.batch import Axis, Field, pack
from xtuner_core.engine.objective import StepTotals

STEPS = 100


def spied(rig):
    """Keep the gradients that the optimizer is given, scaled as it is told."""
    kept, step = [], rig.optimizer.step

    def spy(grads, *, learning_rate, grad_scale):
        kept.append([grad * grad_scale for grad in grads])
        step(grads, learning_rate=learning_rate, grad_scale=grad_scale)

    rig.optimizer.step = spy
    return kept


def reference_step(toy, docs):
    weights = {name: p.detach().clone().requires_grad_() for name, p in toy.rig().model.named_parameters()}
    loss = toy.reference_loss(weights, docs)
    loss.backward()
    return loss.item(), [weight.grad for weight in weights.values()]


@pytest.mark.parametrize("parts", [1, 2, 4, 12])
def test_loss_and_gradients_equal_the_reference_for_every_split(toy, parts):
    docs = toy.documents()
    expected, expected_grads = reference_step(toy, docs)
    rig = toy.rig()
    kept = spied(rig)
    result = rig.engine.step(toy.split(docs, parts), steps=STEPS)
    assert result.loss + result.auxiliary["size"] == pytest.approx(expected, rel=1e-13)
    for mine, theirs in zip(kept[0], expected_grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    norm = torch.cat([grad.flatten() for grad in expected_grads]).norm().item()
    assert result.grad_norm == pytest.approx(norm, rel=1e-12)


def test_filler_changes_nothing(toy):
    docs = toy.documents()
    bare, filled = toy.rig(), toy.rig()
    kept_bare, kept_filled = spied(bare), spied(filled)
    one = bare.engine.step(toy.split(docs, 2), steps=STEPS)
    other = filled.engine.step(toy.split(docs, 2, capacity=64), steps=STEPS)
    assert (one.loss, one.auxiliary, one.tokens, one.statistics) == (
        pytest.approx(other.loss, rel=1e-13),
        pytest.approx(other.auxiliary, rel=1e-13),
        other.tokens,
        other.statistics,
    )
    for mine, theirs in zip(kept_bare[0], kept_filled[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_three_steps_equal_torch_adamw_on_the_reference(toy, clip_norm):
    rig = toy.rig(clip_norm=clip_norm, learning_rate=0.02)
    weights = {name: p.detach().clone().requires_grad_() for name, p in rig.model.named_parameters()}
    matrices = [w for w in weights.values() if w.dim() > 1]
    vectors = [w for w in weights.values() if w.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.95), eps=1e-8)
    for seed in range(3):
        docs = toy.documents(seed=seed)
        result = rig.engine.step(toy.split(docs, 3), steps=STEPS)
        optimizer.zero_grad()
        toy.reference_loss(weights, docs).backward()
        if clip_norm is not None:
            norm = torch.cat([w.grad.flatten() for w in weights.values()]).norm()
            assert norm > clip_norm
            assert result.grad_norm == pytest.approx(norm.item(), rel=1e-10)
            for weight in weights.values():
                weight.grad *= clip_norm / norm
        optimizer.step()
    for name, parameter in rig.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name].detach(), rtol=1e-11, atol=1e-13)


def test_further_predictions_count_with_their_weight_and_their_own_labels(toy):
    docs = toy.documents()
    later = [doc.labels.roll(-1).masked_fill(torch.arange(len(doc)) >= len(doc) - 2, -100) for doc in docs]
    whole = [
        replace(doc, fields={"later": Field(tensor=labels, axis=Axis.TOKEN, pad=-100)})
        for doc, labels in zip(docs, later, strict=True)
    ]
    result = toy.rig(extra=0.5).engine.step(toy.split(whole, 2, capacity=64), steps=STEPS)
    shifted = [replace(doc, labels=labels) for doc, labels in zip(docs, later, strict=True)]
    alone = toy.rig().engine.step([pack(shifted)], steps=STEPS)
    weights = sum(float((doc.weights * (doc.labels >= 0)).sum()) for doc in docs)
    counted = sum(float((doc.weights * (doc.labels >= 0)).sum()) for doc in shifted)
    assert result.loss == pytest.approx(toy.rig().engine.step([pack(docs)], steps=STEPS).loss, rel=1e-12)
    assert result.auxiliary["mtp"] == pytest.approx(0.5 * alone.loss * counted / weights, rel=1e-12)


def test_statistics_are_summed_over_real_tokens_and_handed_to_the_model_once(toy):
    docs, rig = toy.documents(), toy.rig()
    result = rig.engine.step(toy.split(docs, 4, capacity=40), steps=STEPS)
    odd = sum(int((doc.token_ids % 2).sum()) for doc in docs)
    total = sum(len(doc) for doc in docs)
    assert result.statistics == {"expert_load": [[odd, total - odd]]}
    assert rig.model.followed == [result.statistics]
    assert result.tokens == total


def test_a_step_without_a_single_weight_is_finite(toy):
    docs = [replace(doc, weights=torch.zeros(len(doc))) for doc in toy.documents()]
    rig = toy.rig()
    result = rig.engine.step(toy.split(docs, 2), steps=STEPS)
    assert result.loss == 0
    assert result.auxiliary["size"] > 0
    assert not result.skipped


class Poisoned(TokenMean):
    """A loss that is not a number, or whose gradient is not, on demand."""

    kind = "none"

    def total(self, scores, batch):
        total = super().total(scores, batch)
        if self.kind == "loss":
            return total * float("nan")
        if self.kind == "gradient":
            return total + (total - total.detach()).sqrt() * 0
        return total


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_that_is_not_finite_leaves_every_bit_and_says_so(toy, kind):
    loss = Poisoned()
    rig, twin = toy.rig(loss=loss), toy.rig()
    batches = toy.split(toy.documents(), 2)
    rig.engine.step(batches, steps=STEPS)
    twin.engine.step(batches, steps=STEPS)
    before = {name: p.detach().clone() for name, p in rig.model.named_parameters()}
    loss.kind = kind
    result = rig.engine.step(batches, steps=STEPS)
    assert result.skipped
    assert result.step == 2
    assert all(torch.equal(before[name], p) for name, p in rig.model.named_parameters())
    assert len(rig.model.followed) == 1
    loss.kind = "none"
    assert not rig.engine.step(batches, steps=STEPS).skipped
    twin.engine.step(batches, steps=STEPS)
    for mine, theirs in zip(rig.model.parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


class CountSyncs(TorchDispatchMode):
    """Counts what makes the host wait for a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_host_waits_for_the_device_nowhere_between_micro_batches(toy):
    rig = toy.rig(clip_norm=0.1)
    batches = toy.split(toy.documents(), 4)
    totals = StepTotals.of(rig.engine.loss, batches)
    with CountSyncs() as syncs:
        rig.engine._stepper(batches, totals, step=1, learning_rate=0.1)
    assert syncs.count == 0


def test_the_learning_rate_is_the_optimizers_times_the_schedules_factor(toy):
    rig = toy.rig(learning_rate=0.5)
    rig.engine.schedule = lambda step, steps: step / steps
    batch = toy.split(toy.documents(), 1)
    rates = [rig.engine.step(batch, steps=4).learning_rate for _ in range(2)]
    assert rates == [0.125, 0.25]


def test_scores_are_the_log_probabilities_of_the_labels(toy):
    rig = toy.rig()
    docs = toy.documents()
    batch = pack(docs)
    scores = rig.engine.score(batch)
    assert not scores.log_probs_T.requires_grad
    loss = -(scores.log_probs_T * batch.weights).sum() / batch.weights.sum()
    assert loss.item() == pytest.approx(rig.engine.step([batch], steps=STEPS).loss, rel=1e-12)
    assert bool((scores.log_probs_T[batch.labels < 0] == 0).all())
