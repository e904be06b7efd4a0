"""Where each tensor of a Llama checkpoint lies in the model."""

from __future__ import annotations

from collections.abc import Iterator

from xtuner_core.contracts.weights import Init, WeightEntry, WeightMap
from xtuner_core.nn import attention_entries, mlp_entries, norm_entry
from xtuner_core_llama.config import LlamaConfig


def weight_map(config: LlamaConfig) -> WeightMap:
    """Map the keys of the published checkpoints to the fused parameters."""
    matrix = Init("normal", config.initializer_range)
    entries = [WeightEntry(hf_name="model.embed_tokens.weight", parameter="embed.weight", init=matrix)]
    for layer in range(config.num_layers):
        entries += _layer(config, f"model.layers.{layer}", f"layers.{layer}", matrix)
    entries.append(norm_entry("model.norm", "norm"))
    if config.tie_word_embeddings:
        return WeightMap(tuple(entries), optional=frozenset({"lm_head.weight"}))
    entries.append(WeightEntry(hf_name="lm_head.weight", parameter="head.weight", init=matrix))
    return WeightMap(tuple(entries))


def _layer(config: LlamaConfig, theirs: str, ours: str, matrix: Init) -> Iterator[WeightEntry]:
    yield norm_entry(f"{theirs}.input_layernorm", f"{ours}.attention_norm")
    yield norm_entry(f"{theirs}.post_attention_layernorm", f"{ours}.feed_forward_norm")
    heads = (config.num_heads, config.num_kv_heads, config.head_dim)
    bias = config.attention_bias
    yield from attention_entries(f"{theirs}.self_attn", f"{ours}.attention", heads, matrix, bias=bias, out_bias=bias)
    inner = config.intermediate_size
    yield from mlp_entries(f"{theirs}.mlp", f"{ours}.feed_forward", inner, matrix, bias=config.mlp_bias)
