"""What is derived from a step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.device import DeviceFacts, MemoryFigures
from xtuner_core.engine.metrics import WINDOW, Meter, imbalance


class Config:
    def flops(self, lengths):
        return sum(length * length for length in lengths)


def meter(toy, peak=None, rates=None):
    device = SimpleNamespace(memory=lambda: MemoryFigures(allocated=1, peak=123))
    facts = DeviceFacts(
        chip="abacus",
        capabilities=frozenset(),
        memory_bytes=1,
        peak_flops={} if peak is None else {"bfloat16": peak},
    )
    engine = SimpleNamespace(device=device, policy=toy.BF16, optimizer=SimpleNamespace(rates=rates or {}))
    return Meter(config=Config(), engine=engine, facts=facts, steps=50)


def result(step=1, seconds=2.0, **more):
    return StepResult(step=step, loss=1.5, grad_norm=1.0, learning_rate=0.1, tokens=60, seconds=seconds, **more)


def test_rates_count_real_tokens_and_true_lengths_over_waiting_and_working(toy):
    batches = toy.split(toy.documents(), 2, capacity=64)
    lengths = [len(doc) for doc in toy.documents()]
    step = meter(toy, peak=100.0).step(result(), batches, waited=1.0, more={"mine": 4.0})
    assert step.tokens_per_second == pytest.approx(20)
    assert step.model_flops_per_second == pytest.approx(sum(n * n for n in lengths) / 3)
    assert step.mfu == pytest.approx(step.model_flops_per_second / 100)
    assert step.memory_peak_bytes == 123
    assert step.metrics["mine"] == 4.0
    assert step.metrics["seconds.wait"] == 1.0


def test_utilisation_is_unknown_where_the_peak_is(toy):
    assert meter(toy).step(result(), toy.split(toy.documents(), 1), waited=0.0, more={}).mfu is None


def test_rates_are_those_of_the_last_steps(toy):
    subject, batch = meter(toy), toy.split(toy.documents(), 1)
    subject.step(result(seconds=1000.0), batch, waited=0.0, more={})
    for step in range(WINDOW):
        last = subject.step(result(step=step + 2, seconds=3.0), batch, waited=0.0, more={})
    assert last.tokens_per_second == pytest.approx(20)
    assert subject.tokens == 60 * (WINDOW + 1)


def test_skipped_steps_are_counted(toy):
    subject, batch = meter(toy), toy.split(toy.documents(), 1)
    subject.step(result(skipped=True), batch, waited=0.0, more={})
    last = subject.step(result(step=2), batch, waited=0.0, more={})
    assert last.metrics["skipped_steps"] == 1
    assert subject.skipped == 1


def test_imbalance_is_the_largest_load_over_the_mean():
    assert imbalance({"expert_load": [[2.0, 2.0, 2.0], [6.0, 0.0, 0.0]]}) == {
        "expert_imbalance.0": 1.0,
        "expert_imbalance.1": 3.0,
        "expert_imbalance.max": 3.0,
    }
    assert imbalance({"expert_load": [[0.0, 0.0]]})["expert_imbalance.max"] == 1.0
    assert imbalance({}) == {}


def test_statistics_of_a_real_step_give_an_imbalance(toy):
    found = toy.rig().engine.step(toy.split(toy.documents(), 2), steps=1)
    (load,) = found.statistics["expert_load"]
    expected = max(load) * 2 / sum(load)
    assert imbalance(found.statistics)["expert_imbalance.max"] == pytest.approx(expected)
    assert torch.tensor(load).sum() == found.tokens


def test_learning_rates_that_differ_are_told_by_group(toy):
    batch = toy.split(toy.documents(), 1)
    metrics = meter(toy, rates={"embed": 0.5}).step(result(), batch, waited=0.0, more={}).metrics
    assert metrics["learning_rate.embed"] == result().learning_rate / 2
    assert not any("learning_rate" in name for name in meter(toy).step(result(), batch, waited=0.0, more={}).metrics)
