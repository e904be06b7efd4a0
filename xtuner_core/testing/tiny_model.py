"""The model `tiny`, composed from `xtuner_core.nn`, with stacked and fused parameters as large models have them."""

from __future__ import annotations

from collections.abc import Iterator

from xtuner_core.contracts.weights import Init, Span, WeightEntry, WeightMap
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
from xtuner_core.testing.tiny import TinyConfig

HEAD_DIM, TOP_K, EPS = 4, 2, 1e-6
MATRIX, ONES = Init("normal", 0.1), Init("constant", 1.0)


class TinyModel(CausalLM):
    """The model of a `TinyConfig`."""

    def __init__(self, config: TinyConfig) -> None:
        balance = Balance(coefficient=0.01)
        super().__init__(
            config,
            embed=TokenEmbedding(config.vocab_size, config.hidden_size),
            layers=(_layer(config, layer, balance) for layer in range(config.num_layers)),
            norm=RMSNorm(config.hidden_size, EPS),
            rotary=RotaryTable(RotaryConfig(dim=HEAD_DIM, theta=100.0)),
            balance=balance,
            tied=False,
        )

    def weight_map(self) -> WeightMap:
        """Gate and up lie in one matrix here and apart in the checkpoint, experts in one stack and apart."""
        entries = [WeightEntry(hf_name="embed.weight", parameter="embed.weight", init=MATRIX)]
        for layer in range(self.config.num_layers):
            entries += _entries(self.config, layer)
        entries.append(WeightEntry(hf_name="norm.weight", parameter="norm.weight", init=ONES))
        entries.append(WeightEntry(hf_name="head.weight", parameter="head.weight", init=MATRIX))
        return WeightMap(tuple(entries))


def build(config: TinyConfig) -> TinyModel:
    """Build the model on the current default device."""
    return TinyModel(config)


def _layer(config: TinyConfig, layer: int, balance: Balance) -> DecoderLayer:
    width, ff = config.hidden_size, config.inner_size
    attention = Attention(width, config.num_heads, config.num_heads // 2, HEAD_DIM, layer=layer)
    mixture = MoE(width, ff, config.num_experts, TOP_K, normalise=True, balance=balance) if layer else None
    return DecoderLayer(layer, attention, mixture or MLP(width, ff), lambda: RMSNorm(width, EPS))


def _entries(config: TinyConfig, layer: int) -> Iterator[WeightEntry]:
    at, ff = f"layers.{layer}", config.inner_size
    for name in ("attention_norm", "feed_forward_norm"):
        yield WeightEntry(hf_name=f"{at}.{name}.weight", parameter=f"{at}.{name}.weight", init=ONES)
    for name in ("attention.qkv", "attention.out"):
        yield WeightEntry(hf_name=f"{at}.{name}.weight", parameter=f"{at}.{name}.weight", init=MATRIX)
    rows = (("gate", Span(0, ff)), ("up", Span(ff, 2 * ff)))
    at += ".feed_forward"
    if layer == 0:
        for name, span in rows:
            yield WeightEntry(
                hf_name=f"{at}.{name}.weight", parameter=f"{at}.gate_up.weight", index=(span,), init=MATRIX
            )
        yield WeightEntry(hf_name=f"{at}.down.weight", parameter=f"{at}.down.weight", init=MATRIX)
        return
    yield WeightEntry(hf_name=f"{at}.router.weight", parameter=f"{at}.router.weight", init=MATRIX)
    for expert in range(config.num_experts):
        for name, span in rows:
            yield WeightEntry(
                hf_name=f"{at}.experts.{expert}.{name}.weight",
                parameter=f"{at}.experts.gate_up",
                index=(expert, span),
                init=MATRIX,
            )
        yield WeightEntry(
            hf_name=f"{at}.experts.{expert}.down.weight",
            parameter=f"{at}.experts.down",
            index=(expert,),
            init=MATRIX,
        )
