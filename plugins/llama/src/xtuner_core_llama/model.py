"""Llama, composed from `xtuner_core.nn`: the dense decoder of Touvron et al. 2023 (arXiv 2302.13971, section 2.2).

Pre-normalised layers of grouped-query attention (without QK-norm) and a SwiGLU network; rotary positions, plain or
scaled as in Llama 3.1 (arXiv 2407.21783, section 3.4.3).
"""

from __future__ import annotations

from functools import partial
from typing import cast

from xtuner_core.contracts.weights import WeightMap
from xtuner_core.nn import (
    MLP,
    Attention,
    Balance,
    CausalLM,
    DecoderLayer,
    Frequencies,
    Llama3Frequencies,
    RMSNorm,
    RotaryConfig,
    RotaryTable,
    TokenEmbedding,
    default_frequencies,
)
from xtuner_core_llama.config import LlamaConfig
from xtuner_core_llama.weights import weight_map


class Llama(CausalLM):
    """The model of a `LlamaConfig`."""

    def __init__(self, config: LlamaConfig) -> None:
        rotary = RotaryConfig(dim=config.head_dim, theta=config.rope_theta)
        super().__init__(
            config,
            embed=TokenEmbedding(config.vocab_size, config.hidden_size),
            layers=(_layer(config, layer) for layer in range(config.num_layers)),
            norm=RMSNorm(config.hidden_size, config.rms_norm_eps),
            rotary=RotaryTable(rotary, _frequencies(config)),
            balance=Balance(),
            tied=config.tie_word_embeddings,
        )

    def weight_map(self) -> WeightMap:
        """Map the keys of the published checkpoints to the parameters."""
        return weight_map(self.config)


def build(config: LlamaConfig) -> Llama:
    """Build the model on the current default device; its parameters are not initialised."""
    return Llama(config)


def _layer(config: LlamaConfig, layer: int) -> DecoderLayer:
    attention = Attention(
        config.hidden_size,
        config.num_heads,
        config.num_kv_heads,
        config.head_dim,
        layer=layer,
        bias=config.attention_bias,
        out_bias=config.attention_bias,
    )
    feed_forward = MLP(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
    return DecoderLayer(layer, attention, feed_forward, partial(RMSNorm, config.hidden_size, config.rms_norm_eps))


def _frequencies(config: LlamaConfig) -> Frequencies:
    if config.rope_type == "default":
        return default_frequencies
    return Llama3Frequencies(
        factor=cast(float, config.rope_factor),
        low=cast(float, config.rope_low_freq_factor),
        high=cast(float, config.rope_high_freq_factor),
        original_positions=cast(int, config.rope_original_positions),
    )
