"""FSDP trains as one process does: losses, every gradient and the weights after three AdamW steps, in float64."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch

from xtuner_core.testing.layouts import Case, train_case, train_cases, trained
from xtuner_core.testing.ranks import run_ranks
from xtuner_core.testing.steps import distance

NEAR = 1e-9
"""As difference over norm of each tensor."""
FROZEN = {"parameters": [{"role": "embed", "frozen": True}]}


def case(name: str, beside: dict[str, Any] | None = None, **settings: Any) -> Case:
    """A training under FSDP with these settings, and others beside."""
    return Case(name=name, plugins=("fsdp",), overrides={"parallelism": {"fsdp": settings}, **(beside or {})})


TWO = [
    case("as_it_comes"),
    case("whole_over_a_step", reshard_after_forward="never", prefetch=0, reduce="micro_batch"),
    case("offloaded", offload=True, prefetch=2),
    case("replicas_only", replicate=2),
    case("frozen_embedding", FROZEN),
    case("uneven_rows", {"model": {"name": "tiny", "vocab_size": 259, "inner_size": 21, "num_experts": 3}}),
]
FOUR = [
    case("shards_on_four", prefetch=2),
    case("hsdp", replicate=2),
    case("hsdp_each_micro_batch", replicate=2, reduce="micro_batch"),
    case("two_shards_beside_data", shard=2, expert_shard=2),
    case("experts_apart", shard=2, expert_shard=4),
    case("fewer_experts_than_ranks", {"model": {"name": "tiny", "num_experts": 2, "inner_size": 24}}),
    case("whole_over_a_step_on_four", reshard_after_forward="never"),
    case("offloaded_on_four", offload=True, reduce="micro_batch"),
]


def check(cases: list[Case], ranks: int, folder: Any) -> None:
    """Train all cases on so many ranks in one launch, and compare each with one process."""
    payload = {"folder": str(folder), "cases": [asdict(each) for each in cases]}
    run_ranks(ranks, "xtuner_core.testing.layouts:train_cases", payload)
    alone: dict[str, dict[str, torch.Tensor]] = {}
    for each in cases:
        beside = {key: value for key, value in each.overrides.items() if key != "parallelism"}
        key = json.dumps(beside)
        if key not in alone:
            train_cases({"folder": str(folder), "cases": [asdict(Case(name="alone", overrides=beside))]})
            alone[key] = trained(folder, "alone")
        found = trained(folder, each.name)
        assert found.keys() == alone[key].keys()
        far = {name: distance(found[name], tensor) for name, tensor in alone[key].items()}
        assert {name: value for name, value in far.items() if not value < NEAR} == {}, each.name


def test_two_ranks_train_as_one_process(tmp_path):
    check(TWO, 2, tmp_path)


@pytest.mark.full
def test_four_ranks_train_as_one_process(tmp_path):
    check(FOUR, 4, tmp_path)


def test_a_rank_alone_keeps_its_model_and_trains_bit_for_bit_as_without():
    plain, sharded = (train_case(each) for each in (Case(name="plain", overrides={}), case("fsdp")))
    assert plain is not None
    assert sharded is not None
    assert plain.losses == sharded.losses
    assert all(torch.equal(tensor, sharded.tensors[name]) for name, tensor in plain.tensors.items())
