"""Strategies from outside: one with a dimension of its own, one that replaces the schedule; the core knows neither."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xtuner_core.testing.layouts import Case

OBJECTS = {"tensor": "strangers.tensor", "pipeline": "strangers.pipeline"}
FOUR_LAYERS = {"model": {"num_layers": 4}}
BOUND = 1e-9
TWO = {
    "tensor": {"parallelism": {"tensor": {"size": 2}}},
    "tensor_muon": {"parallelism": {"tensor": {"size": 2}}, "optimizer": "muon"},
    "pipeline": {**FOUR_LAYERS, "parallelism": {"pipeline": {}}},
    "pipeline_muon": {**FOUR_LAYERS, "parallelism": {"pipeline": {}}, "optimizer": "muon"},
}
FOUR = {
    "tensor_data": {"parallelism": {"tensor": {"size": 2}}},
    "tensor_fsdp": {"parallelism": {"tensor": {"size": 2}, "fsdp": {}}},
    "tensor_fsdp_muon": {"parallelism": {"tensor": {"size": 2}, "fsdp": {}}, "optimizer": "muon"},
    "pipeline_data": {**FOUR_LAYERS, "parallelism": {"pipeline": {}}},
}


@pytest.fixture(autouse=True)
def _strangers_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert str(Path(__file__).parent) in sys.path


def check(count, layouts, on_ranks, alone, far):
    cases = [Case(name=name, overrides=overrides, objects=OBJECTS) for name, overrides in layouts.items()]
    found = on_ranks(count, cases)
    worst = {case.name: far(found[case.name], alone(case))[0] for case in cases}
    assert {name: distance for name, distance in worst.items() if not distance[0] < BOUND} == {}


def test_a_strangers_dimension_and_a_strangers_schedule_train_as_one_process(on_ranks, alone, far):
    check(2, TWO, on_ranks, alone, far)


@pytest.mark.full
def test_they_go_together_with_data_parallelism(on_ranks, alone, far):
    check(4, FOUR, on_ranks, alone, far)
