"""The configuration of Qwen3-MoE: fields, what they must satisfy, parameters and operations by formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from xtuner_core.contracts.counts import ParameterCount
from xtuner_core_qwen3_moe import config_json


@dataclass(kw_only=True)
class Qwen3MoeConfig:
    """Sizes and choices of a Qwen3-MoE model; the defaults are a model for a laptop.

    :raises ValueError: the values do not fit together; says which field, and what it must be.
    """

    vocab_size: int = 1024
    """Rows of the embedding and of the head."""
    hidden_size: int = 192
    """Width of the residual stream."""
    num_layers: int = 4
    """Layers of the stack."""
    num_heads: int = 6
    """Query heads; a multiple of `num_kv_heads`."""
    num_kv_heads: int = 3
    """Key-value heads."""
    head_dim: int = 32
    """Channels of a head; even, and independent of `hidden_size`."""
    intermediate_size: int = 384
    """Inner width of the layers that have a dense feed-forward network."""
    moe_intermediate_size: int = 192
    """Inner width of one expert."""
    num_experts: int = 8
    """Experts of a layer."""
    top_k: int = 2
    """Experts that each token meets; `num_experts_per_tok` in a `config.json`."""
    norm_topk_prob: bool = True
    """Whether the weights of a token's experts are divided by their sum."""
    decoder_sparse_step: int = 1
    """Every how many layers the feed-forward block is a mixture of experts."""
    mlp_only_layers: list[int] = field(default_factory=list)
    """Layers, counted from 0, that are dense whatever `decoder_sparse_step` says."""
    tie_word_embeddings: bool = False
    """Whether embedding and head are one matrix."""
    attention_bias: bool = False
    """Whether the four projections of attention have a bias."""
    rope_theta: float = 10000.0
    """Base of the rotary wavelengths."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square in every normalisation."""
    initializer_range: float = 0.02
    """Standard deviation of the normal distribution that matrices are drawn from."""
    max_position_embeddings: int = 2048
    """Context that the model is meant for; travels to `config.json` and limits nothing here."""
    balance_coefficient: float = 0.001
    """Of the load-balancing loss, summed over layers; `router_aux_loss_coef` in a `config.json`."""
    balance_scope: Literal["document", "micro_batch"] = "document"
    """Tokens over which expert shares are taken; `micro_batch` depends on how documents are packed."""
    z_coefficient: float = 0.0
    """Of the router's z-loss, summed over layers; `router_z_loss_coef` in a `config.json`."""
    bos_token_id: int | None = None
    """Travels to `config.json`."""
    eos_token_id: list[int] = field(default_factory=list)
    """Travels to `config.json`; more than one is written as a list."""
    pad_token_id: int | None = None
    """Travels to `config.json`; no row of the embedding is zeroed for it."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("balance_coefficient", "z_coefficient", "initializer_range"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a multiple of num_kv_heads ({self.num_kv_heads}), not {self.num_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, because channels rotate in pairs, not {self.head_dim}")
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k must be at most num_experts ({self.num_experts}), not {self.top_k}")
        if any(not 0 <= layer < self.num_layers for layer in self.mlp_only_layers):
            raise ValueError(
                f"mlp_only_layers must lie in 0 to {self.num_layers - 1}, not {list(self.mlp_only_layers)}"
            )
        if self.balance_scope not in ("document", "micro_batch"):
            raise ValueError(f"balance_scope must be document or micro_batch, not {self.balance_scope!r}")

    def is_sparse(self, layer: int) -> bool:
        """Whether a layer's feed-forward block is a mixture of experts."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Self:
        """From a Hugging Face `config.json`, old (`rope_theta`) or new (`rope_parameters`).

        :raises ValueError: a key is missing, or asks for something that this model does not do.
        """
        return cls(**config_json.read(config))

    def to_hf(self) -> dict[str, Any]:
        """Write the `config.json` that `transformers` 4.5x and 5.x load; `from_hf` reads it back."""
        return config_json.write(self)

    def parameter_count(self) -> ParameterCount:
        """By formula, without building anything."""
        table = self.vocab_size * self.hidden_size
        norms = self.num_layers * (2 * self.hidden_size + 2 * self.head_dim) + self.hidden_size
        heads = self.num_heads + 2 * self.num_kv_heads
        biases = self.attention_bias * self.num_layers * (heads * self.head_dim + self.hidden_size)
        beside = norms + biases + table * (not self.tie_word_embeddings)
        return ParameterCount(
            total=self._layer_weights(self.num_experts) + beside + table,
            active=self._layer_weights(self.top_k) + norms + biases + table,
        )

    def flops(self, lengths: Sequence[int]) -> int:
        """Operations of one forward and backward pass over documents of these lengths.

        A weight that a token meets costs one multiply-add forward and two backward, 6 operations; the router
        and the head are among them, the embedding's lookup is not. Attention multiplies queries with keys and
        probabilities with values: 2 * 2 * H * C * l^2 forward for the whole square of a document of l tokens,
        half of it for the causal part, three times that with backward: 6 * H * C * l^2.
        """
        weights = self._layer_weights(self.top_k) + self.vocab_size * self.hidden_size
        attention = self.num_layers * self.num_heads * self.head_dim * sum(length**2 for length in lengths)
        return 6 * (weights * sum(lengths) + attention)

    def _layer_weights(self, experts: int) -> int:
        """Entries of the layers' matrices, with so many of each layer's experts."""
        sparse = sum(self.is_sparse(layer) for layer in range(self.num_layers))
        heads = 2 * (self.num_heads + self.num_kv_heads)
        attention = self.num_layers * heads * self.head_dim
        dense = (self.num_layers - sparse) * 3 * self.intermediate_size
        mixture = sparse * (self.num_experts + 3 * experts * self.moe_intermediate_size)
        return self.hidden_size * (attention + dense + mixture)


_POSITIVE = (
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "intermediate_size",
    "moe_intermediate_size",
    "num_experts",
    "top_k",
    "decoder_sparse_step",
    "rope_theta",
    "rms_norm_eps",
    "max_position_embeddings",
)
