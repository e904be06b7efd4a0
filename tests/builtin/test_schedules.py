"""Schedules equal their closed forms."""

from __future__ import annotations

from math import cos, pi

import pytest

from xtuner_core.builtin.cosine.config import ConstantConfig, CosineConfig
from xtuner_core.builtin.cosine.schedule import constant, cosine


def test_cosine_equals_its_closed_form_at_every_step():
    factor = cosine(CosineConfig(warmup_steps=10, final_fraction=0.1))
    for step in range(1, 101):
        half = 0.1 + 0.9 * 0.5 * (1 + cos(pi * (step - 10) / 90))
        assert factor(step, 100) == pytest.approx(step / 10 if step <= 10 else half, abs=1e-15)


def test_cosine_has_its_peak_at_the_end_of_the_warm_up_and_ends_at_the_final_fraction():
    factor = cosine(CosineConfig(warmup_fraction=0.2, final_fraction=0.25))
    assert factor(20, 100) == 1.0
    assert factor(1, 100) == pytest.approx(0.05)
    assert factor(100, 100) == pytest.approx(0.25, abs=1e-15)


def test_constant_stays_at_the_peak_after_the_warm_up():
    factor = constant(ConstantConfig(warmup_steps=4))
    assert [factor(step, 8) for step in range(1, 9)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_warm_up_longer_than_the_run_ends_below_the_peak(steps: int):
    assert cosine(CosineConfig(warmup_steps=10))(steps, steps) == steps / 10


def test_a_run_of_one_step_takes_the_last_factor():
    assert cosine(CosineConfig(warmup_fraction=0.0))(1, 1) == pytest.approx(0.1)
    assert constant(ConstantConfig())(1, 1) == 1.0


@pytest.mark.parametrize("wrong", [{"warmup_steps": -1}, {"warmup_fraction": 1.5}, {"final_fraction": 2.0}])
def test_values_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="must"):
        CosineConfig(**wrong)
