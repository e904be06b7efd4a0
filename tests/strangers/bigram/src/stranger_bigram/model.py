"""The model bigram: the next token from the last one alone, so that document boundaries cannot matter.

T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from stranger_bigram.config import BigramConfig
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.model import ModelOutput, Prediction
from xtuner_core.contracts.weights import Init, Span, WeightEntry, WeightMap
from xtuner_core.nn import MLP, RMSNorm, TokenEmbedding, TokenHead


class Layer(nn.Module):
    """A gated feed-forward block on the normalised stream."""

    role = "layer"

    def __init__(self, config: BigramConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm = RMSNorm(config.width, 1e-6)
        self.mlp = MLP(config.width, config.inner)

    def forward(self, x_TD: Tensor) -> Tensor:
        """[T, D] to [T, D]."""
        return x_TD + self.mlp(self.norm(x_TD))


class Bigram(nn.Module):
    """The model of a `BigramConfig`."""

    def __init__(self, config: BigramConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = TokenEmbedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.width, 1e-6)
        self.head = TokenHead(config.vocab_size, config.width)

    def forward(self, batch: PackedBatch, cache: Any = None) -> ModelOutput:
        """Hidden states of every token; there is nothing to keep in a cache."""
        x_TD = self.embed(batch.token_ids)
        for layer in self.layers:
            x_TD = layer(x_TD)
        return ModelOutput(predictions=(Prediction(hidden_TD=self.norm(x_TD)),))

    def weight_map(self) -> WeightMap:
        """Gate and up lie in one matrix here and apart in the checkpoint."""
        matrix, ones, inner = Init("normal", 0.05), Init("constant", 1.0), self.config.inner
        entries = [WeightEntry(hf_name="embed.weight", parameter="embed.weight", init=matrix)]
        for layer in range(self.config.num_layers):
            name = f"layers.{layer}"
            entries += [
                WeightEntry(hf_name=f"{name}.norm.weight", parameter=f"{name}.norm.weight", init=ones),
                *(
                    WeightEntry(
                        hf_name=f"{name}.{part}.weight",
                        parameter=f"{name}.mlp.gate_up.weight",
                        index=(rows,),
                        init=matrix,
                    )
                    for part, rows in (("gate", Span(0, inner)), ("up", Span(inner, 2 * inner)))
                ),
                WeightEntry(hf_name=f"{name}.down.weight", parameter=f"{name}.mlp.down.weight", init=matrix),
            ]
        entries += [
            WeightEntry(hf_name="norm.weight", parameter="norm.weight", init=ones),
            WeightEntry(hf_name="head.weight", parameter="head.weight", init=matrix),
        ]
        return WeightMap(tuple(entries))

    def after_step(self, statistics: Mapping[str, Tensor]) -> None:
        """No buffer follows the statistics."""
