"""Where each tensor of a Qwen3-MoE checkpoint lies in the model."""

from __future__ import annotations

from collections.abc import Iterator

from xtuner_core.contracts.weights import Init, Span, WeightEntry, WeightMap
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig

_ONES = Init("constant", 1.0)
_ZEROS = Init("constant", 0.0)


def weight_map(config: Qwen3MoeConfig) -> WeightMap:
    """Map the keys of the published checkpoints, one for each expert, to the stacked and fused parameters."""
    matrix = Init("normal", config.initializer_range)
    entries = [WeightEntry(hf_name="model.embed_tokens.weight", parameter="embed.weight", init=matrix)]
    for layer in range(config.num_layers):
        entries += _layer(config, layer, matrix)
    entries.append(WeightEntry(hf_name="model.norm.weight", parameter="norm.weight", init=_ONES))
    if config.tie_word_embeddings:
        return WeightMap(tuple(entries), optional=frozenset({"lm_head.weight"}))
    entries.append(WeightEntry(hf_name="lm_head.weight", parameter="head.weight", init=matrix))
    return WeightMap(tuple(entries))


def _layer(config: Qwen3MoeConfig, layer: int, matrix: Init) -> Iterator[WeightEntry]:
    theirs, ours = f"model.layers.{layer}", f"layers.{layer}"
    for hf_name, name in (
        ("input_layernorm", "attention_norm"),
        ("post_attention_layernorm", "feed_forward_norm"),
    ):
        yield WeightEntry(hf_name=f"{theirs}.{hf_name}.weight", parameter=f"{ours}.{name}.weight", init=_ONES)
    yield from _attention(config, f"{theirs}.self_attn", f"{ours}.attention", matrix)
    feed_forward = _mixture if config.is_sparse(layer) else _dense
    yield from feed_forward(config, f"{theirs}.mlp", f"{ours}.feed_forward", matrix)


def _attention(config: Qwen3MoeConfig, theirs: str, ours: str, matrix: Init) -> Iterator[WeightEntry]:
    start = 0
    for name, heads in (("q", config.num_heads), ("k", config.num_kv_heads), ("v", config.num_kv_heads)):
        rows = (Span(start, start := start + heads * config.head_dim),)
        yield WeightEntry(
            hf_name=f"{theirs}.{name}_proj.weight", parameter=f"{ours}.qkv.weight", index=rows, init=matrix
        )
        if config.attention_bias:
            yield WeightEntry(
                hf_name=f"{theirs}.{name}_proj.bias", parameter=f"{ours}.qkv.bias", index=rows, init=_ZEROS
            )
    yield WeightEntry(hf_name=f"{theirs}.o_proj.weight", parameter=f"{ours}.out.weight", init=matrix)
    if config.attention_bias:
        yield WeightEntry(hf_name=f"{theirs}.o_proj.bias", parameter=f"{ours}.out.bias", init=_ZEROS)
    for name in ("q_norm", "k_norm"):
        yield WeightEntry(hf_name=f"{theirs}.{name}.weight", parameter=f"{ours}.{name}", init=_ONES)


def _dense(config: Qwen3MoeConfig, theirs: str, ours: str, matrix: Init) -> Iterator[WeightEntry]:
    ff = config.intermediate_size
    for name, rows in (("gate", Span(0, ff)), ("up", Span(ff, 2 * ff))):
        yield WeightEntry(
            hf_name=f"{theirs}.{name}_proj.weight",
            parameter=f"{ours}.gate_up.weight",
            index=(rows,),
            init=matrix,
        )
    yield WeightEntry(hf_name=f"{theirs}.down_proj.weight", parameter=f"{ours}.down.weight", init=matrix)


def _mixture(config: Qwen3MoeConfig, theirs: str, ours: str, matrix: Init) -> Iterator[WeightEntry]:
    yield WeightEntry(hf_name=f"{theirs}.gate.weight", parameter=f"{ours}.router.weight", init=matrix)
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
