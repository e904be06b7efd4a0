"""The configuration of Llama: fields, what they must satisfy, parameters and operations by formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from xtuner_core.contracts.counts import ParameterCount
from xtuner_core_llama import config_json


@dataclass(kw_only=True)
class LlamaConfig:
    """Sizes and choices of a dense Llama model; the defaults are a model for a laptop.

    :raises ValueError: the values do not fit together; says which field, and what it must be.
    """

    vocab_size: int = 1024
    """Rows of the embedding and of the head."""
    hidden_size: int = 192
    """Width of the residual stream; a multiple of `num_heads`, because `transformers` refuses others."""
    num_layers: int = 4
    """Layers of the stack."""
    num_heads: int = 6
    """Query heads; a multiple of `num_kv_heads`."""
    num_kv_heads: int = 2
    """Key-value heads."""
    head_dim: int = 32
    """Channels of a head; even, and independent of `hidden_size`."""
    intermediate_size: int = 512
    """Inner width of the feed-forward network."""
    tie_word_embeddings: bool = False
    """Whether embedding and head are one matrix."""
    attention_bias: bool = False
    """Whether the four projections of attention have a bias."""
    mlp_bias: bool = False
    """Whether the three projections of the feed-forward network have a bias."""
    rope_theta: float = 10000.0
    """Base of the rotary wavelengths."""
    rope_type: Literal["default", "llama3"] = "default"
    """`llama3` slows down the channels that turn seldom, by the four values below, which it needs."""
    rope_factor: float | None = None
    """How much slower the slow channels turn."""
    rope_low_freq_factor: float | None = None
    """Turns within the original context up to which a channel is slow."""
    rope_high_freq_factor: float | None = None
    """Turns within the original context from which a channel is left as it is."""
    rope_original_positions: int | None = None
    """Tokens of the original context; `original_max_position_embeddings` in a `config.json`."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square in every normalisation."""
    initializer_range: float = 0.02
    """Standard deviation of the normal distribution that matrices are drawn from."""
    max_position_embeddings: int = 2048
    """Context that the model is meant for; travels to `config.json` and limits nothing here."""
    bos_token_id: int | None = None
    """Travels to `config.json`."""
    eos_token_id: list[int] = field(default_factory=list)
    """Travels to `config.json`; more than one is written as a list."""
    pad_token_id: int | None = None
    """Travels to `config.json`; no row of the embedding is zeroed for it."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        if self.initializer_range < 0:
            raise ValueError(f"initializer_range must not be negative, not {self.initializer_range}")
        for name, divisor in (("hidden_size", "num_heads"), ("num_heads", "num_kv_heads")):
            value, of = getattr(self, name), getattr(self, divisor)
            if value % of:
                raise ValueError(f"{name} must be a multiple of {divisor} ({of}), not {value}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, because channels rotate in pairs, not {self.head_dim}")
        self._check_rope()

    def _check_rope(self) -> None:
        if self.rope_type not in ("default", "llama3"):
            raise ValueError(f"rope_type must be default or llama3, not {self.rope_type!r}")
        scaled = self.rope_type == "llama3"
        for name in config_json.LLAMA3.values():
            if (getattr(self, name) is not None) != scaled:
                needs = "needs" if scaled else "has no use for"
                raise ValueError(f"rope_type {self.rope_type} {needs} {name}, which is {getattr(self, name)}")
        low, high = self.rope_low_freq_factor, self.rope_high_freq_factor
        if low is not None and high is not None and high <= low:
            raise ValueError(f"rope_high_freq_factor must be above rope_low_freq_factor ({low}), not {high}")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Self:
        """From a Hugging Face `config.json`, old (`rope_theta`) or new (`rope_parameters`).

        :raises ValueError: a key is missing, unknown, or asks for something that this model does not do.
        """
        return cls(**config_json.read(config))

    def to_hf(self) -> dict[str, Any]:
        """Write the `config.json` that `transformers` 4.5x and 5.x load; `from_hf` reads it back."""
        return config_json.write(self)

    def parameter_count(self) -> ParameterCount:
        """By formula, without building anything."""
        table = self.vocab_size * self.hidden_size
        norms = (2 * self.num_layers + 1) * self.hidden_size
        heads = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        biases = self.attention_bias * (heads + self.hidden_size)
        biases += self.mlp_bias * (2 * self.intermediate_size + self.hidden_size)
        active = self._layer_weights() + norms + self.num_layers * biases + table
        return ParameterCount(total=active + table * (not self.tie_word_embeddings), active=active)

    def flops(self, lengths: Sequence[int]) -> int:
        """Operations of one forward and backward pass over documents of these lengths.

        A weight costs a token one multiply-add forward and two backward, 6 operations; the head is among them,
        the embedding's lookup is not. Attention multiplies queries with keys and probabilities with values:
        2 * 2 * H * C * l^2 forward for the whole square of a document of l tokens, half of it for the causal
        part, three times that with backward: 6 * H * C * l^2.
        """
        weights = self._layer_weights() + self.vocab_size * self.hidden_size
        attention = self.num_layers * self.num_heads * self.head_dim * sum(length**2 for length in lengths)
        return 6 * (weights * sum(lengths) + attention)

    def _layer_weights(self) -> int:
        """Entries of the layers' matrices."""
        attention = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim
        return self.num_layers * self.hidden_size * (attention + 3 * self.intermediate_size)


_POSITIVE = (
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "intermediate_size",
    "rope_theta",
    "rope_factor",
    "rope_low_freq_factor",
    "rope_high_freq_factor",
    "rope_original_positions",
    "rms_norm_eps",
    "max_position_embeddings",
)
