"""Qwen3-MoE, composed from `xtuner_core.nn`.

Pre-normalised layers of grouped-query attention with QK-norm before rotation, and of SwiGLU experts chosen by
softmax top-k without dropping (Qwen3 technical report, arXiv 2505.09388, section 2).
"""

from __future__ import annotations

from functools import partial

from xtuner_core.contracts.weights import WeightMap
from xtuner_core.nn import (
    MLP,
    Attention,
    Balance,
    CausalLM,
    DecoderLayer,
    MoE,
    RMSNorm,
    RotaryConfig,
    RotaryTable,
    TokenEmbedding,
)
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig
from xtuner_core_qwen3_moe.weights import weight_map


class Qwen3Moe(CausalLM):
    """The model of a `Qwen3MoeConfig`."""

    def __init__(self, config: Qwen3MoeConfig) -> None:
        balance = Balance(
            coefficient=config.balance_coefficient,
            scope=config.balance_scope,
            z_coefficient=config.z_coefficient,
        )
        super().__init__(
            config,
            embed=TokenEmbedding(config.vocab_size, config.hidden_size),
            layers=(_layer(config, layer, balance) for layer in range(config.num_layers)),
            norm=RMSNorm(config.hidden_size, config.rms_norm_eps),
            rotary=RotaryTable(RotaryConfig(dim=config.head_dim, theta=config.rope_theta)),
            balance=balance,
            tied=config.tie_word_embeddings,
        )

    def weight_map(self) -> WeightMap:
        """Map the keys of the published checkpoints to the parameters."""
        return weight_map(self.config)


def build(config: Qwen3MoeConfig) -> Qwen3Moe:
    """Build the model on the current default device; its parameters are not initialised."""
    return Qwen3Moe(config)


def _layer(config: Qwen3MoeConfig, layer: int, balance: Balance) -> DecoderLayer:
    attention = Attention(
        config.hidden_size,
        config.num_heads,
        config.num_kv_heads,
        config.head_dim,
        layer=layer,
        qk_norm_eps=config.rms_norm_eps,
        bias=config.attention_bias,
        out_bias=config.attention_bias,
    )
    norm = partial(RMSNorm, config.hidden_size, config.rms_norm_eps)
    return DecoderLayer(layer, attention, _feed_forward(config, layer, balance), norm)


def _feed_forward(config: Qwen3MoeConfig, layer: int, balance: Balance) -> MLP | MoE:
    if not config.is_sparse(layer):
        return MLP(config.hidden_size, config.intermediate_size)
    return MoE(
        config.hidden_size,
        config.moe_intermediate_size,
        config.num_experts,
        config.top_k,
        normalise=config.norm_topk_prob,
        balance=balance,
    )
