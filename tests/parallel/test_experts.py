"""Expert parallelism: what it does to a model, what it refuses, and the memory that it stays within.

T tokens of a rank, D model width, F expert width, K chosen experts, P ranks, N rows that a rank's experts see.
"""

from __future__ import annotations

from copy import deepcopy
from math import ceil
from pathlib import Path

import pytest
import torch
from torch import nn

from xtuner_core.contracts.parallelism import RankContext
from xtuner_core.engine.ranks.groups import RankGroups
from xtuner_core.engine.ranks.layout import RankLayout
from xtuner_core.errors import ComposeError, ConfigError, ContractError
from xtuner_core.nn import iter_roles, set_role
from xtuner_core.parts import Parts
from xtuner_core.records import Dimension
from xtuner_core.testing import ParallelismSmoke, compose_tiny, tiny_host
from xtuner_core.testing.build import meta_model
from xtuner_core.testing.parallelism import FP64
from xtuner_core.testing.ranks import run_ranks
from xtuner_core.views import Claim, divide

T, D, F, K, P, FLOAT64 = 512, 64, 32, 2, 2, 8
EXPERTS = "layers.1.feed_forward.experts"


class TestExpertParallel(ParallelismSmoke):
    plugin = "expert_parallel"
    configs = ({}, {"dispatcher": "naive", "imbalance": None})


class Ranks(RankGroups):
    """One of several that never speak to each other."""

    def group(self, *axes):
        return None


def parts(**values):
    host = tiny_host(["expert_parallel"])
    return Parts(compose_tiny({"parallelism": {"expert_parallel": values}}, host=host).require(), host)


def applied(model: nn.Module, rank: int, size: int, **values):
    """The model as that rank has it, and what it told of its parameters."""
    axis = Dimension(name="expert.parallel", size="size")
    ranks = Ranks(divide(size, [Claim(dimension=axis, size=size, key="")]), rank, device_type="cpu")
    layout, made = RankLayout(ranks.views, rank), parts(**values)
    layout.begin(model)
    context = RankContext(
        ranks=ranks, layout=layout, device=made.make("device", local_rank=0), policy=FP64, followers=frozenset()
    )
    return made.make("parallelism.expert_parallel").apply(model, context), layout


@pytest.fixture
def model() -> nn.Module:
    return meta_model(tiny_host(), "tiny", {}, torch.float64)


def test_each_rank_keeps_a_block_of_consecutive_experts(model):
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for rank in range(2):
        mine, layout = applied(deepcopy(model), rank, 2)
        held = {name: layout.part(name, parameter) for name, parameter in mine.named_parameters()}
        assert {name: part.shape for name, part in held.items()} == shapes
        split = {name: part.start for name, part in held.items() if tuple(part.tensor.shape) != part.shape}
        assert split == {f"{EXPERTS}.{leaf}": (2 * rank, 0, 0) for leaf in ("gate_up", "down")}


def test_its_gradients_are_summed_over_ranks_that_hold_the_same_experts_only(model):
    mine, layout = applied(model, 0, 2)
    unsummed = {name: layout.unsummed(name) for name, _ in mine.named_parameters()}
    assert {axes for name, axes in unsummed.items() if name.startswith(EXPERTS)} == {()}
    assert {axes for name, axes in unsummed.items() if not name.startswith(EXPERTS)} == {("dense.data",)}


def test_experts_that_are_frozen_stay_so(model):
    model.get_submodule(EXPERTS).down.requires_grad_(False)
    mine, _ = applied(model, 0, 2)
    found = {leaf: parameter.requires_grad for leaf, parameter in mine.get_submodule(EXPERTS).named_parameters()}
    assert found == {"gate_up": True, "down": False}


def test_operators_are_told_how_many_experts_there_are_and_how_many_a_row_meets(model):
    mine, _ = applied(model, 0, 4)
    (use,) = mine.get_submodule(EXPERTS).uses(device="cpu", dtype=torch.float64).values()
    assert (use.size("experts"), use.size("top_k")) == (1, 1)


def test_roles_stay_and_a_model_can_be_copied(model):
    roles = [(item.name, item.role) for item in iter_roles(model)]
    mine, _ = applied(model, 1, 2)
    assert [(item.name, item.role) for item in iter_roles(deepcopy(mine))] == roles


def test_ranks_that_do_not_divide_the_experts_are_refused_with_those_that_do(model):
    with pytest.raises(ConfigError, match="size=3 does not divide the 4 experts") as caught:
        applied(model, 0, 3)
    assert caught.value.fix.endswith("may be 1, 2, 4")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_model_without_experts_is_refused(ranks):
    dense = meta_model(tiny_host(), "tiny", {"num_layers": 1})
    with pytest.raises(ConfigError, match=r"no module of role moe\.experts"):
        applied(dense, 0, ranks)


def test_experts_without_a_place_for_a_dispatcher_are_the_models_fault(model):
    set_role(model.layers[1].feed_forward.dispatcher, "moe.other")
    with pytest.raises(ContractError, match="only one of the roles"):
        applied(model, 0, 2)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"size": 0}, "size must be a number of ranks"),
        ({"size": "all"}, "size must be a number of ranks"),
        ({"imbalance": 0}, "imbalance must be above 0"),
        ({"dispatcher": "carrier_pigeon"}, "no installed plugin offers the dispatcher"),
    ],
)
def test_values_that_cannot_be_honoured_are_refused(values, told):
    with pytest.raises(ComposeError, match=told):
        parts(**values)


def test_no_dispatcher_is_refused():
    with pytest.raises(ConfigError, match="no dispatcher to bring tokens to experts"):
        parts(dispatcher=None).make("parallelism.expert_parallel")


@pytest.mark.full
def test_memory_stays_within_its_bound_with_all_tokens_on_one_expert():
    cases = [
        (dispatcher, routing, imbalance)
        for dispatcher in ("all_to_all", "naive")
        for routing, imbalance in (("even", 1.0), ("one", 0.5), ("one", 0.25), ("one", None))
    ]
    ranks = run_ranks(P, f"{Path(__file__).with_name('experts_ranks.py')}:memory", cases)
    for (dispatcher, _, imbalance), *found in zip(cases, *ranks, strict=True):
        kept, peak = bounds(dispatcher, imbalance or 1.0, several=found[0]["rounds"] > 1)
        if imbalance is not None:
            assert [each for each in found if each["kept"] > kept or each["peak"] > peak] == [], (dispatcher, imbalance)
        else:
            # Without a bound the rank of the one expert holds more than any balanced one may.
            assert found[-1]["kept"] > kept
            assert found[-1]["peak"] > peak
    assert [found[-1]["rounds"] for found in zip(*ranks, strict=True)] == 2 * [1, 4, 8, 1]


def bounds(dispatcher: str, imbalance: float, *, several: bool) -> tuple[int, int]:
    """Bytes between the passes and at most, by the formula of `ExpertParallelConfig`."""
    rows, choices = ceil(imbalance * T * K), T * K * (P if dispatcher == "naive" else 1)
    way = 4 * T * K * D if dispatcher == "all_to_all" else 2 * P * T * D
    kept = T * D if several else rows * (D + 2 * F)
    peak = kept + 2 * rows * (2 * D + 3 * F) + way + 3 * T * D
    # What is kept is measured with the layer's output and without its input.
    return (0 if several else kept) * FLOAT64 + T * D * FLOAT64 + 64 * choices, peak * FLOAT64 + 64 * choices
