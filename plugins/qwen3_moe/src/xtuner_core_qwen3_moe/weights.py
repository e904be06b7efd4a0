"""Where each tensor of a Qwen3-MoE checkpoint lies in the model."""

from __future__ import annotations

from collections.abc import Iterator

from xtuner_core.contracts.weights import Init, Span, WeightEntry, WeightMap
from xtuner_core.nn import attention_entries, linear_entries, mlp_entries, norm_entry
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig


def weight_map(config: Qwen3MoeConfig) -> WeightMap:
    """Map the keys of the published checkpoints, one for each expert, to the stacked and fused parameters."""
    matrix = Init("normal", config.initializer_range)
    entries = [WeightEntry(hf_name="model.embed_tokens.weight", parameter="embed.weight", init=matrix)]
    for layer in range(config.num_layers):
        entries += _layer(config, layer, matrix)
    entries.append(norm_entry("model.norm", "norm"))
    if config.tie_word_embeddings:
        return WeightMap(tuple(entries), optional=frozenset({"lm_head.weight"}))
    entries.append(WeightEntry(hf_name="lm_head.weight", parameter="head.weight", init=matrix))
    return WeightMap(tuple(entries))


def _layer(config: Qwen3MoeConfig, layer: int, matrix: Init) -> Iterator[WeightEntry]:
    theirs, ours = f"model.layers.{layer}", f"layers.{layer}"
    yield norm_entry(f"{theirs}.input_layernorm", f"{ours}.attention_norm")
    yield norm_entry(f"{theirs}.post_attention_layernorm", f"{ours}.feed_forward_norm")
    heads = (config.num_heads, config.num_kv_heads, config.head_dim)
    options = {"bias": config.attention_bias, "out_bias": config.attention_bias, "qk_norm": True}
    yield from attention_entries(f"{theirs}.self_attn", f"{ours}.attention", heads, matrix, **options)
    if config.is_sparse(layer):
        yield from _mixture(config, f"{theirs}.mlp", f"{ours}.feed_forward", matrix)
    else:
        yield from mlp_entries(f"{theirs}.mlp", f"{ours}.feed_forward", config.intermediate_size, matrix)


def _mixture(config: Qwen3MoeConfig, theirs: str, ours: str, matrix: Init) -> Iterator[WeightEntry]:
    yield from linear_entries(f"{theirs}.gate", f"{ours}.router", matrix)
    ff = config.moe_intermediate_size
    for expert in range(config.num_experts):
        prefix = f"{theirs}.experts.{expert}"
        for name, rows in (("gate", Span(0, ff)), ("up", Span(ff, 2 * ff))):
            yield WeightEntry(
                hf_name=f"{prefix}.{name}_proj.weight",
                parameter=f"{ours}.experts.gate_up",
                index=(expert, rows),
                init=matrix,
            )
        yield WeightEntry(
            hf_name=f"{prefix}.down_proj.weight",
            parameter=f"{ours}.experts.down",
            index=(expert,),
            init=matrix,
        )
