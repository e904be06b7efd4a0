"""Latent attention computes what `transformers.DeepseekV3ForCausalLM`'s attention computes, with its weights."""

from __future__ import annotations

import pytest
import torch
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention
from xtuner_core_kernels.attention import reference as attention
from xtuner_core_kernels.rms_norm import reference as rms_norm
from xtuner_core_kernels.rotary import reference as rotary

from xtuner_core.contracts.batch import Document, pack
from xtuner_core.contracts.operator import OperatorTable
from xtuner_core.contracts.weights import Init
from xtuner_core.nn import LatentAttention, LatentSizes, OperatorModule, RotaryConfig, RotaryTable
from xtuner_core.nn.weight_entries import latent_attention_entries

OPERATORS = {"attention": attention, "rms_norm": rms_norm, "rotary": rotary}
TOKENS, DIM, THETA = 9, 20, 10000.0


def bound(module: LatentAttention) -> LatentAttention:
    users = [each for each in module.modules() if isinstance(each, OperatorModule)]
    uses = [use for user in users for use in user.uses(device="cpu", dtype=torch.float64).values()]
    table = OperatorTable({use: OPERATORS[use.operator].IMPLEMENTATION for use in uses})
    for user in users:
        user.bind(table, device="cpu", dtype=torch.float64)
    return module


def theirs(sizes: LatentSizes, *, bias: bool, interleaved: bool) -> DeepseekV3Attention:
    config = DeepseekV3Config(
        hidden_size=DIM,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        q_lora_rank=sizes.query_latent,
        kv_lora_rank=sizes.latent,
        qk_nope_head_dim=sizes.content_dim,
        qk_rope_head_dim=sizes.rotary_dim,
        v_head_dim=sizes.value_dim,
        attention_bias=bias,
        rope_interleave=interleaved,
    )
    config._attn_implementation = "eager"
    module = DeepseekV3Attention(config, layer_idx=0).double()
    random = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4, generator=random)
    return module


@pytest.mark.parametrize("query_latent", [None, 6])
@pytest.mark.parametrize("interleaved", [False, True])
def test_outputs_and_gradients_equal_those_of_transformers(query_latent, interleaved):
    bias = query_latent is not None
    sizes = LatentSizes(heads=4, content_dim=6, rotary_dim=4, value_dim=5, latent=8, query_latent=query_latent)
    reference = theirs(sizes, bias=bias, interleaved=interleaved)
    eps = reference.kv_a_layernorm.variance_epsilon
    module = LatentAttention(
        DIM, sizes, layer=0, norm_eps=eps, interleaved=interleaved, bias=bias, out_bias=bias
    ).double()
    entries = list(latent_attention_entries("their", "our", sizes, Init("normal", 1.0), bias=bias, out_bias=bias))
    parameters = {f"our.{name}": each for name, each in module.named_parameters()}
    weights = {f"their.{name}": each for name, each in reference.named_parameters()}
    assert {entry.hf_name for entry in entries} == weights.keys()
    with torch.no_grad():
        for entry in entries:
            entry.region(parameters[entry.parameter]).copy_(weights[entry.hf_name])

    batch = pack([Document.of(range(TOKENS))])
    x_TD = torch.randn(TOKENS, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    halves = RotaryTable(RotaryConfig(dim=sizes.rotary_dim, theta=THETA))(batch.positions, torch.float64)
    pairs = RotaryTable(RotaryConfig(dim=sizes.rotary_dim, theta=THETA), interleaved=interleaved)
    found = bound(module)(x_TD, *pairs(batch.positions, torch.float64), batch)
    hidden_TT = torch.full((TOKENS, TOKENS), float("-inf"), dtype=torch.float64).triu(1)
    expected = reference(x_TD[None], tuple(each[None] for each in halves), hidden_TT[None, None])[0][0]
    # Their norms and their softmax compute in float32.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    for entry in entries:
        ours = entry.region(parameters[entry.parameter].grad)
        their_gradient = weights[entry.hf_name].grad
        assert (ours - their_gradient).norm() < 1e-5 * their_gradient.norm(), entry.hf_name
