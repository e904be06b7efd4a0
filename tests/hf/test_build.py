"""From the meta device to initial weights: ties hold, maps are proved, layouts start equal."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from xtuner_core.contracts.weights import Init, Span, WeightEntry, WeightMap
from xtuner_core.errors import ContractError
from xtuner_core.hf.coverage import check_coverage
from xtuner_core.hf.initialise import initial_tensor, initialise
from xtuner_core.hf.materialise import materialise


def by_key(model):
    state = dict(model.state_dict())
    return {entry.hf_name: entry.region(state[entry.parameter]) for entry in model.weight_map().entries}


def test_every_layout_starts_equal(make_toy, make_flat):
    stacked, flat = by_key(make_toy(seed=4)), by_key(make_flat(seed=4))
    assert stacked.keys() == flat.keys()
    assert all(torch.equal(stacked[key], flat[key]) for key in flat)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_every_dtype_starts_from_the_same_draw(make_toy, dtype):
    reference, other = by_key(make_toy(seed=4)), by_key(make_toy(seed=4, dtype=dtype))
    assert all(torch.equal(reference[key].to(other[key].dtype), other[key]) for key in reference)


def test_seed_and_name_decide_a_tensor():
    init = Init("normal", 0.02)
    draw = initial_tensor("a", (64, 64), init, 0)
    assert torch.equal(draw, initial_tensor("a", (64, 64), init, 0))
    assert not torch.equal(draw, initial_tensor("b", (64, 64), init, 0))
    assert not torch.equal(draw, initial_tensor("a", (64, 64), init, 1))
    assert not torch.equal(draw, initial_tensor("a", (64, 64), init, 2**32)), "more than 32 bits of the seed count"


def test_draws_have_the_moments_that_were_asked_for():
    draw = initial_tensor("a", (1000, 1000), Init("normal", 0.02), 0).double()
    # One million draws: the mean's standard error is 0.02 / 1000, the standard deviation's 0.02 / 1414.
    assert abs(draw.mean().item()) < 5 * 0.02 / 1000
    assert abs(draw.std().item() - 0.02) < 5 * 0.02 / 1414
    assert torch.equal(initial_tensor("a", (3,), Init("constant", 1.5), 0), torch.full((3,), 1.5))


def test_materialising_keeps_ties_attributes_and_the_dtype_of_buffers(meta_toy):
    meta_toy.norm.role = "norm"
    meta_toy.down.requires_grad_(requires_grad=False)
    materialise(meta_toy, "cpu", torch.bfloat16)
    assert meta_toy.head.weight is meta_toy.embed.weight
    assert meta_toy.embed.weight.dtype == torch.bfloat16
    assert meta_toy.bias.dtype == torch.float32
    assert not any(tensor.is_meta for tensor in meta_toy.state_dict().values())
    assert meta_toy.norm.role == "norm"
    assert not meta_toy.down.requires_grad
    assert meta_toy.gate_up.requires_grad


def test_what_is_not_on_meta_keeps_its_values():
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    materialise(module, "cpu", torch.float64)
    assert torch.equal(module.weight, before.double())


def test_a_buffer_that_nothing_would_fill_is_refused():
    module = nn.Module()
    module.register_buffer("table", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(ContractError, match="table is not persistent"):
        materialise(module, "cpu")


def test_a_right_map_passes(meta_toy, make_flat):
    check_coverage(meta_toy, meta_toy.weight_map())
    flat = make_flat()
    check_coverage(flat, flat.weight_map())


def changed(weight_map, key, **changes):
    return replace(
        weight_map,
        entries=tuple(replace(e, **changes) if e.hf_name == key else e for e in weight_map.entries),
    )


@pytest.mark.parametrize(
    ("hf_name", "changes", "complaint"),
    [
        (
            "model.norm.weight",
            {"parameter": "nrom"},
            "model.norm.weight lies in nrom, which the model does not have",
        ),
        ("model.experts.1.up", {"index": (1, Span(4, 7))}, r"gate_up \[3, 8, 6\] is covered in part"),
        ("model.experts.1.up", {"index": (1, Span(3, 7))}, r"gate_up \[3, 8, 6\] is covered in part"),
        ("model.experts.1.up", {"index": (1, Span(3, 8))}, r"gate_up \[3, 8, 6\] is covered more than once"),
        ("model.experts.1.up", {"index": (2, Span(4, 8))}, r"gate_up \[3, 8, 6\] is covered in part"),
        ("model.odd.weight", {"index": (Span(0, 8, 2),)}, r"pairs \[8, 6\] is covered in part"),
        ("model.odd.weight", {"index": ()}, r"pairs \[8, 6\] is covered more than once"),
        (
            "model.experts.1.up",
            {"index": (3, Span(4, 8))},
            "does not fit gate_up: 3 is not within a dim of 3",
        ),
        ("model.experts.1.up", {"index": (-1, Span(4, 8))}, "does not fit gate_up: -1 is not within"),
        ("model.experts.1.up", {"index": (1, Span(4, 9))}, "is not within a dim of 8"),
        ("model.norm.weight", {"index": (Span(0, 6), 0)}, "does not fit norm: 2 indices for 1 dims"),
        ("model.norm.weight", {"transpose": True}, "a region of 1 dims cannot be transposed"),
        ("model.norm.weight", {"hf_name": "model.odd.weight"}, "two entries are called model.odd.weight"),
        (
            "model.norm.weight",
            {"hf_name": "lm_head.weight"},
            "lm_head.weight is an entry and optional at once",
        ),
    ],
)
def test_a_wrong_map_is_refused_and_the_parameter_named(meta_toy, hf_name, changes, complaint):
    with pytest.raises(ContractError, match=complaint) as caught:
        check_coverage(meta_toy, changed(meta_toy.weight_map(), hf_name, **changes), plugin="toy")
    assert caught.value.plugin == "toy"


def test_a_parameter_or_buffer_left_out_is_refused(meta_toy):
    weight_map = meta_toy.weight_map()
    kept = tuple(e for e in weight_map.entries if e.parameter not in ("norm", "bias"))
    with pytest.raises(ContractError, match=r"norm \[6\] is in no entry; bias \[3\] is in no entry"):
        check_coverage(meta_toy, replace(weight_map, entries=kept))


def test_a_map_that_names_a_tied_parameter_twice_is_refused(meta_toy):
    weight_map = meta_toy.weight_map()
    again = WeightEntry(hf_name="head.again", parameter="head.weight", init=Init("normal", 1.0))
    with pytest.raises(ContractError, match=r"embed.weight \[11, 6\] is covered more than once"):
        check_coverage(meta_toy, replace(weight_map, entries=(*weight_map.entries, again)))


def test_initialising_names_the_entry_that_does_not_fit(make_toy):
    model = make_toy()
    entry = WeightEntry(hf_name="a", parameter="nowhere", init=Init("constant", 0.0))
    with pytest.raises(ContractError, match="sends a to nowhere"):
        initialise(model, WeightMap((entry,)), 0)
