"""What Muon orthogonalises, in what dtype, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from xtuner_core.builtin.muon import direction
from xtuner_core.builtin.muon.config import MuonConfig
from xtuner_core.builtin.muon.direction import ADJUSTMENTS, Direction
from xtuner_core.builtin.muon.newton_schulz import orthogonalised
from xtuner_core.builtin.muon.optimizer import Muon
from xtuner_core.errors import ConfigError, DataError

SETTINGS = {"steps": 5, "eps": 1e-7, "dtype": torch.float64}


def states(zoo, **config):
    return Muon(MuonConfig(**config), zoo.described(zoo.values()), state_dtype=torch.float32).state_dict()["parameters"]


def orthogonal(zoo, **config):
    return {name for name, state in states(zoo, **config).items() if "momentum" in state}


def test_singular_values_come_near_one_and_singular_vectors_stay():
    matrix = torch.randn(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(matrix[None], **SETTINGS)[0]
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.mT @ found @ vt.mT
    assert ((turned.diagonal() > 0.65) & (turned.diagonal() < 1.25)).all()
    torch.testing.assert_close(turned, turned.diagonal().diag(), rtol=0, atol=1e-13)


def test_each_matrix_of_a_stack_is_as_if_it_were_alone_whichever_side_is_longer():
    stack = torch.randn(3, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stack[1] *= 1000
    found = orthogonalised(stack, **SETTINGS)
    for one, alone in zip(found, stack, strict=True):
        torch.testing.assert_close(one, orthogonalised(alone[None], **SETTINGS)[0], rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(one.mT, orthogonalised(alone.mT[None], **SETTINGS)[0], rtol=1e-12, atol=1e-14)


def test_a_stack_is_iterated_on_in_pieces_that_change_nothing(monkeypatch):
    stack = torch.randn(5, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    direct = Direction(**SETTINGS, adjust=ADJUSTMENTS["original"])
    whole = direct(stack, ())
    for entries in (1, 2 * 7 * 4, 3 * 7 * 4 + 1):
        monkeypatch.setattr(direction, "PIECE", entries)
        torch.testing.assert_close(direct(stack, ()), whole, rtol=1e-13, atol=1e-15)


def test_a_matrix_of_zeros_stays_at_zero():
    assert not orthogonalised(torch.zeros(2, 3, 3), steps=5, eps=1e-7, dtype=torch.bfloat16).any()


def test_bfloat16_is_near_enough():
    stack = torch.randn(2, 32, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(stack, steps=5, eps=1e-7, dtype=torch.bfloat16).double())
    assert ((values > 0.5) & (values < 1.3)).all()


def test_embedding_head_norms_biases_and_router_are_adamws_unless_the_configuration_says_otherwise(zoo):
    assert orthogonal(zoo) == {"qkv", "out", "gate_up", "down", "square"}
    assert orthogonal(zoo, roles=["moe", "attn.out"]) == {"gate_up", "down", "out"}
    assert orthogonal(zoo, adamw_roles=["attn", "norm"]) == {"embed", "gate_up", "down", "router", "square", "head"}


def test_a_convolution_is_adamws(zoo):
    parameters = zoo.described(zoo.values())
    patches = replace(parameters[-1], name="patches", role="vision.patches", tensor=torch.zeros(4, 3, 2, 2))
    given = [*parameters, patches]
    found = Muon(MuonConfig(), given, state_dtype=torch.float32).state_dict()["parameters"]
    assert "exp_avg" in found["patches"]


@pytest.mark.parametrize("key", ["roles", "adamw_roles"])
def test_a_role_that_the_model_has_not_is_refused_with_those_that_it_has(zoo, key):
    with pytest.raises(ConfigError, match=f"optimizer.{key} names 'vision'.*\n.*attn.out, attn.qkv"):
        orthogonal(zoo, **{key: ["vision"]})


def test_nothing_to_orthogonalise_is_refused(zoo):
    with pytest.raises(ConfigError, match="finds no matrix"):
        Muon(MuonConfig(), zoo.described(zoo.values())[:1], state_dtype=torch.float32)


def test_a_state_with_other_roles_orthogonalised_is_refused(zoo):
    saved = Muon(MuonConfig(roles=["moe"]), zoo.described(zoo.values()), state_dtype=torch.float32).state_dict()
    other = Muon(MuonConfig(), zoo.described(zoo.values()), state_dtype=torch.float32)
    with pytest.raises(DataError, match="differs at out and 2 more"):
        other.load_state_dict(saved)


def test_momenta_are_kept_in_the_state_dtype_and_the_iteration_has_its_own(zoo):
    kept = states(zoo)
    assert {tensor.dtype for state in kept.values() for tensor in state.values()} == {torch.float32}
    found = []
    for dtype in ("state", "float64", "bfloat16"):
        tensors = zoo.values()
        config = MuonConfig(newton_schulz_dtype=dtype, learning_rate=1.0, weight_decay=0.0, adjust="original")
        optimizer = zoo.bound(Muon(config, zoo.described(tensors), state_dtype=torch.float64))
        optimizer.step(zoo.values(seed=1), learning_rate=1.0, grad_scale=1.0)
        found.append(dict(zip(zoo.KINDS, tensors, strict=True))["square"])
    assert torch.equal(found[0], found[1])
    assert 1e-4 < (found[0] - found[2]).abs().max() < 0.1


@pytest.mark.parametrize("shape", [(64, 64), (16, 256), (256, 16)])
def test_with_matched_scale_an_entry_moves_as_far_as_with_adamw_whatever_the_shape(zoo, shape):
    """By the RMS of a step, 0.2 where all singular values are 1 (section 2.2)."""
    tensor = torch.zeros(shape, dtype=torch.float64)
    item = replace(zoo.described(zoo.values())[3], tensor=tensor, weight_decay=None)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    Muon(MuonConfig(), [item], state_dtype=torch.float64).step([grad], learning_rate=1.0, grad_scale=1.0)
    assert 0.15 < tensor.square().mean().sqrt() < 0.25


def test_rates_are_told_by_group(zoo):
    given = zoo.described(zoo.values())
    assert Muon(MuonConfig(), given, state_dtype=torch.float32).rates == {"embed": 0.25, "moe.experts.0": 3.0}
    config = MuonConfig(learning_rate=0.02, adamw_learning_rate=0.01)
    assert Muon(config, given, state_dtype=torch.float32).rates == {
        "adamw": 0.5,
        "adamw.embed": 0.125,
        "moe.experts.0": 3.0,
    }


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": -1.0}, {"momentum": 1.0}, {"newton_schulz_steps": 0}, {"eps": -1.0}, {"adamw_beta2": 1.5}],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        MuonConfig(**wrong)
