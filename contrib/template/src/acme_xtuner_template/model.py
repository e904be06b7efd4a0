"""The model, composed from `xtuner_core.nn`, and where each tensor of a checkpoint lies in it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from xtuner_core.contracts.weights import Init, Span, WeightEntry, WeightMap
from xtuner_core.nn import (
    MLP,
    Attention,
    Balance,
    CausalLM,
    DecoderLayer,
    RMSNorm,
    RotaryConfig,
    RotaryTable,
    TokenEmbedding,
)

from acme_xtuner_template.config import AcmeDenseConfig

ONES = Init("constant", 1.0)


class AcmeDense(CausalLM):
    """The model of an `AcmeDenseConfig`."""

    def __init__(self, config: AcmeDenseConfig) -> None:
        super().__init__(
            config,
            embed=TokenEmbedding(config.vocab_size, config.hidden_size),
            layers=(_layer(config, layer) for layer in range(config.num_layers)),
            norm=RMSNorm(config.hidden_size, config.rms_norm_eps),
            rotary=RotaryTable(RotaryConfig(dim=config.head_dim, theta=config.rope_theta)),
            balance=Balance(),
            tied=False,
        )

    def weight_map(self) -> WeightMap:
        """Map every key of a checkpoint to the parameter, or the rows of one, that holds it."""
        matrix = Init("normal", self.config.initializer_range)
        entries = [WeightEntry(hf_name="model.embed_tokens.weight", parameter="embed.weight", init=matrix)]
        for layer in range(self.config.num_layers):
            entries += _entries(self.config, layer, matrix)
        entries.append(WeightEntry(hf_name="model.norm.weight", parameter="norm.weight", init=ONES))
        entries.append(WeightEntry(hf_name="lm_head.weight", parameter="head.weight", init=matrix))
        return WeightMap(tuple(entries))


def build(config: AcmeDenseConfig) -> AcmeDense:
    """Build the model on the current default device; its parameters are not initialised."""
    return AcmeDense(config)


def _layer(config: AcmeDenseConfig, layer: int) -> DecoderLayer:
    attention = Attention(config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim, layer=layer)
    feed_forward = MLP(config.hidden_size, config.intermediate_size)
    return DecoderLayer(layer, attention, feed_forward, partial(RMSNorm, config.hidden_size, config.rms_norm_eps))


def _entries(config: AcmeDenseConfig, layer: int, matrix: Init) -> Iterator[WeightEntry]:
    theirs, ours = f"model.layers.{layer}", f"layers.{layer}"
    whole = {
        "input_layernorm": ("attention_norm", ONES),
        "post_attention_layernorm": ("feed_forward_norm", ONES),
        "self_attn.o_proj": ("attention.out", matrix),
        "mlp.down_proj": ("feed_forward.down", matrix),
    }
    for hf_name, (name, init) in whole.items():
        yield WeightEntry(hf_name=f"{theirs}.{hf_name}.weight", parameter=f"{ours}.{name}.weight", init=init)
    # Queries, keys and values are one matrix in memory, and so are gate and up.
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention, inner = {"q": query, "k": key, "v": key}, config.intermediate_size
    yield from _rows(f"{theirs}.self_attn", f"{ours}.attention.qkv.weight", attention, matrix)
    yield from _rows(f"{theirs}.mlp", f"{ours}.feed_forward.gate_up.weight", {"gate": inner, "up": inner}, matrix)


def _rows(theirs: str, parameter: str, sizes: dict[str, int], init: Init) -> Iterator[WeightEntry]:
    """Entries of matrices that lie one below the other in a parameter."""
    start = 0
    for name, size in sizes.items():
        rows = (Span(start, start := start + size),)
        yield WeightEntry(hf_name=f"{theirs}.{name}_proj.weight", parameter=parameter, index=rows, init=init)
