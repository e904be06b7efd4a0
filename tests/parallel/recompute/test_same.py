"""Recomputation changes no bit of losses, statistics and gradients, and leaves the model otherwise what it was."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from xtuner_core.builtin.cross_entropy.loss import TokenMean
from xtuner_core.nn import select
from xtuner_core.testing import ParallelismSmoke
from xtuner_core.testing.documents import PACKINGS, random_documents
from xtuner_core.testing.steps import differentiate

SMALL = {
    "hidden_size": 16,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 4,
    "intermediate_size": 24,
    "moe_intermediate_size": 12,
    "vocab_size": 97,
    "mlp_only_layers": [0],
    "z_coefficient": 0.1,
    "balance_coefficient": 0.1,
}
NAMES = ["norms and activations", "attention", "attention's norms and rotation", "feed-forward", "experts"]


def same_bits(found, expected):
    ours, theirs = found.tensors(), expected.tensors()
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.fixture(scope="module")
def batches():
    return PACKINGS[1](random_documents(97), 2)


@pytest.mark.parametrize("name", [*NAMES, "whole layers", "one whole layer"])
@pytest.mark.parametrize(("model", "values"), [("tiny", {}), ("qwen3_moe", SMALL)])
def test_losses_statistics_and_gradients_keep_their_bits(
    make_model, recomputed, settings, batches, name, model, values
):
    plain = make_model(model, **values)
    expected = differentiate(plain, TokenMean(), batches)
    assert same_bits(differentiate(recomputed(plain, settings[name]), TokenMean(), batches), expected)


def test_kernels_in_c_are_kept_and_recomputed_alike(make_model, recomputed, settings, batches):
    plain = make_model("qwen3_moe", torch.float32, **SMALL)
    expected = differentiate(plain, TokenMean(), batches)
    for name in ("norms and activations", "whole layers"):
        assert same_bits(differentiate(recomputed(plain, settings[name]), TokenMean(), batches), expected)


def test_different_layers_are_treated_differently(make_model, recomputed, batches):
    plain = make_model("qwen3_moe", **SMALL)
    mixed = recomputed(plain, {"layers": "0"}, {"role": "attn", "layers": "1-", "keep": "products"}, {"role": "moe"})
    assert same_bits(differentiate(mixed, TokenMean(), batches), differentiate(plain, TokenMean(), batches))


def test_a_copy_recomputes_by_itself(make_model, recomputed, settings, batches):
    plain = make_model("tiny")
    model = recomputed(plain, settings["norms and activations"])
    copied = copy.deepcopy(model)
    regions = [{id(m._region) for m in each.modules() if hasattr(m, "_region")} for each in (model, copied)]
    assert len(regions[0]) == len(regions[1]) == 2
    assert regions[0].isdisjoint(regions[1])
    assert same_bits(differentiate(copied, TokenMean(), batches), differentiate(plain, TokenMean(), batches))


def test_parameters_keep_their_names_and_modules_their_kind(make_model, recomputed, settings):
    plain = make_model("qwen3_moe", **SMALL)
    model = recomputed(plain, settings["whole layers"])
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    for ours, theirs in zip(model.modules(), plain.modules(), strict=True):
        assert isinstance(ours, type(theirs))


def test_a_forward_pass_without_gradient_saves_and_repeats_nothing(make_model, recomputed, settings, batches):
    plain = make_model("tiny")
    model = recomputed(plain, settings["whole layers"])
    with torch.no_grad():
        hidden_TD = [each(batches[0]).predictions[0].hidden_TD for each in (plain, model)]
    assert torch.equal(*hidden_TD)


def test_a_graph_can_be_differentiated_twice(make_model, recomputed, settings, batches):
    model = recomputed(make_model("tiny"), settings["norms and activations"])
    total = model(batches[0]).predictions[0].hidden_TD.square().sum()
    weights = list(model.layers.parameters())
    first, second = (torch.autograd.grad(total, weights, retain_graph=True, allow_unused=True) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True) if one is not None)


@pytest.mark.parametrize("name", ["norms and activations", "whole layers"])
def test_it_stands_under_fully_shard(make_model, recomputed, settings, batches, name):
    plain = make_model("qwen3_moe", **SMALL)
    expected = differentiate(plain, TokenMean(), batches)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = recomputed(plain, settings[name])
        mesh = dist.init_device_mesh("cpu", (1,))
        for layer in select(model, "layer"):
            fully_shard(layer.module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        found = differentiate(model, TokenMean(), batches)
        gradients = {name: grad.to_local() for name, grad in found.gradients.items()}
    finally:
        dist.destroy_process_group()
    assert gradients.keys() == expected.gradients.keys()
    assert [each for each in gradients if not torch.equal(gradients[each], expected.gradients[each])] == []


class TestRecompute(ParallelismSmoke):
    plugin, offer = "recompute", "recompute"
    configs = ({}, {"role": "attn", "keep": "products"})
