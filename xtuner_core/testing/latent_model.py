"""The model `latent`, composed from `xtuner_core.nn`, with stacked and fused parameters as large models have them."""

from __future__ import annotations

from collections.abc import Iterator

from xtuner_core.contracts.weights import Init, Span, WeightEntry, WeightMap
from xtuner_core.nn import (
    MLP,
    Attention,
    Balance,
    CausalLM,
    DecoderLayer,
    LatentAttention,
    LatentSizes,
    MoE,
    RMSNorm,
    RotaryConfig,
    RotaryTable,
    TokenEmbedding,
    attention_entries,
    latent_attention_entries,
    mlp_entries,
    norm_entry,
)
from xtuner_core.testing.latent import (
    CONTENT,
    EXPERTS,
    LATENT,
    QUERY_LATENT,
    ROTARY,
    TOP_K,
    VALUE,
    WINDOW,
    LatentConfig,
    is_compressed,
    is_windowed,
)

EPS = 1e-6
MATRIX = Init("normal", 0.1)


class LatentModel(CausalLM):
    """The model of a `LatentConfig`."""

    def __init__(self, config: LatentConfig) -> None:
        balance = Balance(coefficient=0.01, z_coefficient=0.001)
        super().__init__(
            config,
            embed=TokenEmbedding(config.vocab_size, config.hidden_size),
            layers=(_layer(config, layer, balance) for layer in range(config.num_layers)),
            norm=RMSNorm(config.hidden_size, EPS),
            rotary=RotaryTable(RotaryConfig(dim=ROTARY, theta=100.0)),
            balance=balance,
            tied=False,
        )

    def weight_map(self) -> WeightMap:
        """What is one matrix or one stack here lies apart in the checkpoint."""
        entries = [WeightEntry(hf_name="embed.weight", parameter="embed.weight", init=MATRIX)]
        for layer in range(self.config.num_layers):
            entries += _entries(self.config, layer)
        head = WeightEntry(hf_name="head.weight", parameter="head.weight", init=MATRIX)
        return WeightMap((*entries, norm_entry("norm", "norm"), head))


def build(config: LatentConfig) -> LatentModel:
    """Build the model on the current default device."""
    return LatentModel(config)


def _sizes(config: LatentConfig, layer: int) -> LatentSizes:
    return LatentSizes(
        heads=config.num_heads,
        content_dim=CONTENT,
        rotary_dim=ROTARY,
        value_dim=VALUE,
        latent=LATENT,
        query_latent=QUERY_LATENT if is_compressed(layer) else None,
    )


def _layer(config: LatentConfig, layer: int, balance: Balance) -> DecoderLayer:
    width, heads, ff = config.hidden_size, config.num_heads, config.inner_size
    attention = (
        Attention(width, heads, heads // 2, VALUE, layer=layer, rotary_dim=ROTARY, window=WINDOW)
        if is_windowed(layer)
        else LatentAttention(width, _sizes(config, layer), layer=layer, norm_eps=EPS)
    )
    mixture = MoE(width, ff, EXPERTS, TOP_K, normalise=True, balance=balance) if layer else None
    return DecoderLayer(layer, attention, mixture or MLP(width, ff), lambda: RMSNorm(width, EPS))


def _entries(config: LatentConfig, layer: int) -> Iterator[WeightEntry]:
    at, heads = f"layers.{layer}", config.num_heads
    for name in ("attention_norm", "feed_forward_norm"):
        yield norm_entry(f"{at}.{name}", f"{at}.{name}")
    place = f"{at}.attention"
    if is_windowed(layer):
        yield from attention_entries(place, place, (heads, heads // 2, VALUE), MATRIX)
    else:
        yield from latent_attention_entries(place, place, _sizes(config, layer), MATRIX)
    yield from _feed_forward_entries(config, layer, f"{at}.feed_forward")


def _feed_forward_entries(config: LatentConfig, layer: int, at: str) -> Iterator[WeightEntry]:
    ff = config.inner_size
    if layer == 0:
        yield from mlp_entries(at, at, ff, MATRIX)
        return
    yield WeightEntry(hf_name=f"{at}.router.weight", parameter=f"{at}.router.weight", init=MATRIX)
    for expert in range(EXPERTS):
        theirs = f"{at}.experts.{expert}"
        for name, span in (("gate", Span(0, ff)), ("up", Span(ff, 2 * ff))):
            yield WeightEntry(
                hf_name=f"{theirs}.{name}_proj.weight",
                parameter=f"{at}.experts.gate_up",
                index=(expert, span),
                init=MATRIX,
            )
        yield WeightEntry(
            hf_name=f"{theirs}.down_proj.weight", parameter=f"{at}.experts.down", index=(expert,), init=MATRIX
        )
