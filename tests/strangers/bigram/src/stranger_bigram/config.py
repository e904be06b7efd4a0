"""Configuration of the model bigram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from xtuner_core.contracts.counts import ParameterCount


@dataclass(kw_only=True)
class BigramConfig:
    """An embedding, gated layers that see one token, a head."""

    vocab_size: int = 8192
    """Rows of the embedding and of the head; at least as many as the tokenizer has ids."""
    width: int = 64
    """Width of the residual stream."""
    inner: int = 128
    """Inner width of a layer."""
    num_layers: int = 4
    """Layers of the stack."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be above 0, not {value}")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Self:
        """From a `config.json` of model type `bigram`."""
        return cls(**{name: config[name] for name in cls.__dataclass_fields__ if name in config})

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` that `from_hf` reads."""
        return {"model_type": "bigram", **asdict(self)}

    def parameter_count(self) -> ParameterCount:
        """By formula."""
        table = self.vocab_size * self.width
        layers = self.num_layers * (3 * self.width * self.inner + self.width)
        beside = layers + self.width + table
        return ParameterCount(total=beside + table, active=beside)

    def flops(self, lengths: Sequence[int]) -> int:
        """Six operations a weight and token."""
        weights = self.num_layers * 3 * self.width * self.inner + self.vocab_size * self.width
        return 6 * weights * sum(lengths)
