"""Schedules equal their closed forms, step by step, and refuse a run that they do not fit."""

from __future__ import annotations

from math import cos, pi

import pytest

from xtuner_core.builtin.schedules import closed_forms
from xtuner_core.builtin.schedules.config import ConstantConfig, CosineConfig, LinearConfig, WsdConfig
from xtuner_core.errors import ConfigError
from xtuner_core.testing import compose_tiny
from xtuner_core.wiring import run


def test_cosine_equals_its_closed_form_at_every_step():
    factor = closed_forms.cosine(CosineConfig(warmup_steps=10, final_fraction=0.1))
    for step in range(1, 101):
        half = 0.1 + 0.9 * 0.5 * (1 + cos(pi * (step - 10) / 90))
        assert factor(step, 100) == pytest.approx(step / 10 if step <= 10 else half, abs=1e-15)


def test_linear_falls_by_the_same_amount_at_every_step():
    factor = closed_forms.linear(LinearConfig(warmup_steps=20, final_fraction=0.2))
    for step in range(1, 101):
        assert factor(step, 100) == pytest.approx(step / 20 if step <= 20 else 1 - (step - 20) * 0.01, abs=1e-15)


WSD = {
    "linear": lambda step: 1 - (step - 80) / 20,
    "cosine": lambda step: cos(pi * (step - 80) / 40) ** 2,
    "1-sqrt": lambda step: 1 - ((step - 80) / 20) ** 0.5,
}


@pytest.mark.parametrize("shape", WSD)
def test_wsd_warms_up_stays_and_decays_over_its_last_steps(shape: str):
    factor = closed_forms.wsd(WsdConfig(warmup_steps=10, decay_steps=20, shape=shape, final_fraction=0.05))
    found = [factor(step, 100) for step in range(1, 101)]
    expected = [step / 10 for step in range(1, 11)] + [1.0] * 70
    expected += [0.05 + 0.95 * WSD[shape](step) for step in range(81, 101)]
    assert found == pytest.approx(expected, abs=1e-15)


def test_wsd_of_shares_takes_them_of_the_run():
    factor = closed_forms.wsd(WsdConfig(warmup_fraction=0.2, decay_fraction=0.3, shape="linear"))
    found = [factor(step, 10) for step in range(1, 11)]
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3, 0], abs=1e-15)


def test_cosine_has_its_peak_at_the_end_of_the_warm_up_and_ends_at_the_final_fraction():
    factor = closed_forms.cosine(CosineConfig(warmup_fraction=0.2, final_fraction=0.25))
    assert factor(20, 100) == 1.0
    assert factor(1, 100) == pytest.approx(0.05)
    assert factor(100, 100) == pytest.approx(0.25, abs=1e-15)


def test_constant_stays_at_the_peak_after_the_warm_up():
    factor = closed_forms.constant(ConstantConfig(warmup_steps=4))
    assert [factor(step, 8) for step in range(1, 9)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_a_run_of_one_step_takes_the_last_factor():
    assert closed_forms.cosine(CosineConfig(warmup_fraction=0.0))(1, 1) == pytest.approx(0.1)
    assert closed_forms.constant(ConstantConfig())(1, 1) == 1.0


def test_a_step_beyond_the_run_takes_the_last_factor():
    assert closed_forms.linear(LinearConfig(final_fraction=0.2))(12, 10) == pytest.approx(0.2)
    assert closed_forms.constant(ConstantConfig())(1, 0) == 1.0


def test_a_warm_up_as_long_as_the_run_reaches_its_peak_at_the_last_step():
    assert [closed_forms.cosine(CosineConfig(warmup_steps=3))(step, 3) for step in (1, 2, 3)] == [1 / 3, 2 / 3, 1]


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (closed_forms.wsd(WsdConfig(warmup_steps=6, decay_steps=5)), "warm-up of 6 and decay of 5 steps"),
        (closed_forms.cosine(CosineConfig(warmup_steps=11)), "warm-up of 11 and decay of 0 steps"),
        (closed_forms.constant(ConstantConfig(warmup_steps=11)), "warm-up of 11"),
    ],
)
def test_a_run_in_which_warm_up_and_decay_overlap_is_refused(schedule: closed_forms.WarmupStableDecay, said: str):
    with pytest.raises(ConfigError, match=f"{said}.* do not fit into a run of 10"):
        schedule(1, 10)


def test_a_run_that_the_schedule_does_not_fit_is_refused_before_its_first_step(tmp_path):
    schedule = {"name": "wsd", "warmup_steps": 1, "decay_steps": 2}
    composition = compose_tiny({"output": str(tmp_path), "schedule": schedule})
    with pytest.raises(ConfigError, match="do not fit into a run of 2"):
        run(composition)
    assert [file.read_text() for file in tmp_path.glob("*/metrics.jsonl")] == [""]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.3, 0.7), (0.15, 0.85)])
def test_shares_that_fit_are_not_refused_for_their_rounding(shares: tuple[float, float]):
    factor = closed_forms.wsd(WsdConfig(warmup_fraction=shares[0], decay_fraction=shares[1]))
    for steps in range(1, 40):
        assert 0 <= factor(1, steps) <= 1


def test_shares_that_overlap_are_refused_when_composing():
    with pytest.raises(ValueError, match="warm-up and decay overlap"):
        WsdConfig(warmup_fraction=0.6, decay_fraction=0.5)


@pytest.mark.parametrize("wrong", [{"warmup_steps": -1}, {"warmup_fraction": 1.5}, {"final_fraction": 2.0}])
@pytest.mark.parametrize("config", [CosineConfig, LinearConfig, WsdConfig])
def test_values_out_of_range_are_refused(config: type, wrong: dict[str, float]):
    with pytest.raises(ValueError, match="must"):
        config(**wrong)
