"""The configuration: defaults, checks, `config.json` both ways, counts. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from xtuner_core.contracts.counts import ParameterCount

_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "intermediate_size": "intermediate_size",
    "rope_theta": "rope_theta",
    "rms_norm_eps": "rms_norm_eps",
    "initializer_range": "initializer_range",
}
"""Key of `config.json` to field."""


@dataclass(kw_only=True)
class AcmeDenseConfig:
    """A dense decoder."""

    vocab_size: int = 4096
    """Rows of the embedding and of the head."""
    hidden_size: int = 128
    """Width of the residual stream; a multiple of twice `num_heads`."""
    num_layers: int = 4
    """Layers of the stack."""
    num_heads: int = 4
    """Query heads; a multiple of `num_kv_heads`."""
    num_kv_heads: int = 2
    """Key-value heads."""
    intermediate_size: int = 384
    """Inner width of the feed-forward blocks."""
    rope_theta: float = 10000.0
    """Base of the rotary wavelengths."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square in every normalisation."""
    initializer_range: float = 0.02
    """Standard deviation of the normal distribution that matrices are drawn from."""

    def __post_init__(self) -> None:
        for name in _KEYS.values():
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(f"hidden_size must be a multiple of {2 * self.num_heads}, not {self.hidden_size}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a multiple of num_kv_heads ({self.num_kv_heads}), not {self.num_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.hidden_size // self.num_heads

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Self:
        """From a Hugging Face `config.json`.

        :raises ValueError: a key is missing.
        """
        missing = sorted(_KEYS.keys() - config.keys())
        if missing:
            raise ValueError(f"config.json of an acme_dense model must give {', '.join(missing)}")
        return cls(**{field: config[key] for key, field in _KEYS.items()})

    def to_hf(self) -> dict[str, Any]:
        """Write the `config.json` that `from_hf` reads."""
        return {"model_type": "acme_dense", **{key: getattr(self, field) for key, field in _KEYS.items()}}

    def parameter_count(self) -> ParameterCount:
        """By formula, without building anything."""
        table = self.vocab_size * self.hidden_size
        norms = (2 * self.num_layers + 1) * self.hidden_size
        active = self._matrices() + norms + table
        return ParameterCount(total=active + table, active=active)

    def flops(self, lengths: Sequence[int]) -> int:
        """Operations of one forward and backward pass over documents of these lengths.

        6 for each weight of a matrix and token, the head's included; the causal half of attention.
        """
        weights = self._matrices() + self.vocab_size * self.hidden_size
        attention = self.num_layers * self.hidden_size * sum(length**2 for length in lengths)
        return 6 * (weights * sum(lengths) + attention)

    def _matrices(self) -> int:
        attention = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim
        return self.num_layers * self.hidden_size * (attention + 3 * self.intermediate_size)
