"""A plugin to pass as an object: the model `tiny` and the dataset `tiny_texts`, so that a run takes a second.

host = Host(objects={"tiny": xtuner_core.testing.tiny})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from xtuner_core.api import ModelProvider, PluginInfo, Provider, hookimpl
from xtuner_core.contracts.counts import ParameterCount


@dataclass(kw_only=True)
class TinyConfig:
    """A decoder with grouped-query attention, whose first layer is dense and whose others mix experts."""

    vocab_size: int = 257
    """Rows of the embedding and of the head; the bytes and the end of a text."""
    hidden_size: int = 16
    """Width of the residual stream."""
    num_layers: int = 2
    """Layers of the stack."""
    num_heads: int = 4
    """Query heads, of 4 channels each; two share a key-value head."""
    inner_size: int = 24
    """Inner width of the dense layer and of each expert."""
    num_experts: int = 4
    """Experts of a layer; each token meets 2."""

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Self:
        """From a `config.json` of model type `xtuner_core_tiny`."""
        return cls(**{name: value for name, value in config.items() if name in cls.__dataclass_fields__})

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` that `from_hf` reads."""
        return {"model_type": "xtuner_core_tiny", **asdict(self)}

    def parameter_count(self) -> ParameterCount:
        """By formula."""
        norms = self.hidden_size * (2 * self.num_layers + 1)
        table = self.vocab_size * self.hidden_size
        active = self._matrices(2) + norms + table
        return ParameterCount(total=self._matrices(self.num_experts) + norms + 2 * table, active=active)

    def flops(self, lengths: Sequence[int]) -> int:
        """Six operations a weight and token, and the causal half of attention."""
        weights = self._matrices(2) + self.vocab_size * self.hidden_size
        attention = self.num_layers * self.num_heads * 4 * sum(length**2 for length in lengths)
        return 6 * (weights * sum(lengths) + attention)

    def _matrices(self, experts: int) -> int:
        """Entries of the layers' matrices, with so many experts of each layer."""
        attention = self.num_layers * 3 * self.num_heads * 4
        mixture = (self.num_layers - 1) * (self.num_experts + 3 * experts * self.inner_size)
        return self.hidden_size * (attention + 3 * self.inner_size + mixture)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="a model and a text, small enough for a test")


@hookimpl
def xtuner_models() -> Iterable[ModelProvider[Any]]:
    """Offer the model."""
    yield ModelProvider(
        name="tiny",
        factory="xtuner_core.testing.tiny_model:build",
        config="xtuner_core.testing.tiny:TinyConfig",
        hf_model_types=("xtuner_core_tiny",),
        summary="some twenty thousand parameters, dense and mixed layers",
    )


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the text."""
    yield Provider(
        slot="dataset",
        name="tiny_texts",
        factory="xtuner_core.testing.tiny_texts:open_texts",
        summary="a hundred short texts of few words, and a tokenizer of bytes",
    )
