"""Whatever the layout of the ranks: the losses, the gradients and the weights of one process.

In float64, as difference over norm of each tensor, after three steps on five micro-batches of unequal lengths; five
divide no number of ranks, so that some train on packs of weight 0.
"""

from __future__ import annotations

from typing import Any

import pytest

from xtuner_core.testing.layouts import Case

BOUND = 1e-9
MODELS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {
        "plugins": ("qwen3_moe",),
        "model": {
            "name": "qwen3_moe",
            "vocab_size": 61,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "head_dim": 4,
            "num_experts": 8,
            "top_k": 2,
            "moe_intermediate_size": 12,
        },
    },
    "latent": {"objects": {"latent": "xtuner_core.testing.latent"}, "model": "latent"},
}
STRATEGIES: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "none": {},
        "fsdp": {"fsdp": {}},
        "ep": {"expert_parallel": {"size": 2}},
        "ulysses": {"ulysses": {"size": 2}},
        "fsdp_ep": {"fsdp": {}, "expert_parallel": {"size": 2}},
        "fsdp_ulysses": {"fsdp": {}, "ulysses": {"size": 2}},
        "ep_ulysses": {"expert_parallel": {"size": 2}, "ulysses": {"size": 2}},
    },
    4: {
        "none": {},
        "fsdp": {"fsdp": {}},
        "hsdp": {"fsdp": {"replicate": 2}},
        "ep2": {"expert_parallel": {"size": 2}},
        "ep4": {"expert_parallel": {"size": 4}},
        "naive": {"expert_parallel": {"size": 2, "dispatcher": "naive"}},
        "ulysses2": {"ulysses": {"size": 2}},
        "ulysses4": {"ulysses": {"size": 4}},
        "fsdp_ep": {"fsdp": {}, "expert_parallel": {"size": 2}},
        "hsdp_ep": {"fsdp": {"replicate": 2}, "expert_parallel": {"size": 2}},
        "fsdp_ulysses": {"fsdp": {}, "ulysses": {"size": 2}},
        "ep_ulysses": {"expert_parallel": {"size": 2}, "ulysses": {"size": 2}},
        "fsdp_ep_ulysses": {"fsdp": {}, "expert_parallel": {"size": 4}, "ulysses": {"size": 2}},
    },
}
RECOMPUTED: dict[str, dict[str, Any]] = {"kept": {}, "recomputed": {"recompute": {}}}
OPTIMIZERS = ("adamw", "muon")


def case(model: str, optimizer: str, strategies: dict[str, Any], name: str, batches: str = "mixed") -> Case:
    chosen = dict(MODELS[model])
    overrides = {"model": chosen.pop("model"), "optimizer": optimizer, "parallelism": strategies}
    return Case(name=name, overrides=overrides, batches=batches, **chosen)


def cases(count: int, models: tuple[str, ...], recomputed: tuple[str, ...], batches: str = "mixed") -> list[Case]:
    return [
        case(model, optimizer, {**strategies, **RECOMPUTED[kept]}, f"{model}-{layout}-{optimizer}-{kept}", batches)
        for model in models
        for layout, strategies in STRATEGIES[count].items()
        for optimizer in OPTIMIZERS
        for kept in recomputed
    ]


def check(found, cases, alone, far):
    worst = {case.name: far(found[case.name], alone(case))[0] for case in cases}
    assert {name: distance for name, distance in worst.items() if not distance[0] < BOUND} == {}


def test_two_ranks_train_as_one_in_every_layout(on_ranks, alone, far):
    chosen = cases(2, ("latent",), ("kept",))
    check(on_ranks(2, chosen), chosen, alone, far)


def test_recomputation_changes_nothing_on_two_ranks(on_ranks, alone, far):
    chosen = [c for c in cases(2, ("qwen3_moe",), ("recomputed",)) if "adamw" in c.name]
    check(on_ranks(2, chosen), chosen, alone, far)


@pytest.mark.full
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("model", list(MODELS))
def test_ranks_train_as_one_in_every_layout_with_and_without_recomputation(on_ranks, alone, far, count, model):
    chosen = cases(count, (model,), ("kept", "recomputed"))
    check(on_ranks(count, chosen), chosen, alone, far)


@pytest.mark.full
@pytest.mark.parametrize("batches", ["single", "token", "odd"])
def test_ranks_without_data_and_tokens_that_do_not_divide_are_exact(on_ranks, alone, far, batches):
    chosen = [c for c in cases(4, ("latent",), ("kept",), batches) if "adamw" in c.name]
    check(on_ranks(4, chosen), chosen, alone, far)
