"""What ranks say to each other in a step, counted, and the formulas of `docs/explanation/ranks.md`.

Bytes are those that one rank gives to a collective. P parameters, n ranks, m micro-batches of a rank.
"""

from __future__ import annotations

from math import ceil

import pytest
import torch

from xtuner_core.testing.build import meta_model
from xtuner_core.testing.layouts import Case, counted, train_case
from xtuner_core.testing.ranks import run_ranks
from xtuner_core.testing.tiny_run import tiny_host

FLOAT64 = 8
MICRO_BATCHES = 3
"""Of a rank: five on two ranks, the sixth being one of weight 0."""
LAYOUTS = {
    "none": {},
    "fsdp": {"fsdp": {}},
    "fsdp_never": {"fsdp": {"reshard_after_forward": "never"}},
    "fsdp_micro_batch": {"fsdp": {"reduce": "micro_batch"}},
}


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """Rows of collectives by layout: (collective, axes) to (calls, bytes); and waits of the host."""
    folder = tmp_path_factory.mktemp("counts")
    cases = [
        {"name": name, "overrides": {"parallelism": strategies}, "count": True} for name, strategies in LAYOUTS.items()
    ]
    run_ranks(2, "xtuner_core.testing.layouts:train_cases", {"folder": str(folder), "cases": cases})
    found = {name: counted(folder, name) for name in LAYOUTS}
    return {name: rows(data) for name, data in found.items()}, {name: data["waits"] for name, data in found.items()}


def rows(data):
    return {(row["collective"], row["axes"]): (row["calls"], row["bytes"]) for row in data["collectives"]}


@pytest.fixture(scope="module")
def units():
    """Elements of the tiny model by FSDP's units, each parameter's first dim filled up to a multiple of two."""
    sizes = {"root": 0, "head": 0, "layers.0": 0, "layers.1": 0}
    for name, parameter in meta_model(tiny_host(), "tiny", {}, torch.float64).named_parameters():
        unit = next((unit for unit in sizes if name.startswith(unit)), "root")
        sizes[unit] += 2 * ceil(parameter.shape[0] / 2) * parameter[0].numel()
    return sizes


def test_a_rank_alone_says_nothing():
    found = train_case(Case(name="alone", overrides={}, count=True))
    assert found.counts["collectives"] == []
    assert found.counts["waits"] == 0


def test_replicas_sum_every_gradient_once_a_step(counts):
    model = meta_model(tiny_host(), "tiny", {}, torch.float64)
    elements = sum(parameter.numel() for parameter in model.parameters())
    assert counts[0]["none"]["all_reduce", "dense.data"] == (1, elements * FLOAT64)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_adds_the_steps_numbers_up_in_one_collective(counts, layout):
    calls, size = counts[0][layout]["all_reduce", "world"]
    losses, norm, stop, load = 2, 1, 1, 4
    assert (calls, size) == (1, (losses + norm + stop + load) * FLOAT64)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_host_never_waits_within_a_step(counts, layout):
    assert counts[1][layout] == 0


def test_fsdp_gathers_layers_twice_a_micro_batch_and_reduces_once_a_step(counts, units):
    twice = units["layers.0"] + units["layers.1"]
    once = units["root"] + units["head"]
    shards = MICRO_BATCHES * (2 * twice + once) // 2
    assert counts[0]["fsdp"]["all_gather", "dense.shard"] == (MICRO_BATCHES * 6, shards * FLOAT64)
    assert counts[0]["fsdp"]["reduce_scatter", "dense.shard"] == (4, (twice + once) * FLOAT64)


def test_fsdp_that_never_reshards_gathers_once_a_step(counts, units):
    every = sum(units.values())
    assert counts[0]["fsdp_never"]["all_gather", "dense.shard"] == (4, every // 2 * FLOAT64)


def test_fsdp_may_reduce_after_each_micro_batch(counts, units):
    every = sum(units.values())
    expected = (MICRO_BATCHES * 4, MICRO_BATCHES * every * FLOAT64)
    assert counts[0]["fsdp_micro_batch"]["reduce_scatter", "dense.shard"] == expected
