"""A plugin to pass as an object: the model `latent`, which has what `tiny` lacks: latent attention, windows, a z-loss.

host = Host(objects={"latent": xtuner_core.testing.latent})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from xtuner_core.api import ModelProvider, PluginInfo, hookimpl
from xtuner_core.contracts.counts import ParameterCount

CONTENT, ROTARY, VALUE = 6, 4, 8
"""Channels of a head: those that do not rotate, those that do, those of a value."""
LATENT, QUERY_LATENT = 12, 10
"""Channels of the vectors that keys and values, and queries, come from."""
WINDOW, EXPERTS, TOP_K = 5, 8, 2


@dataclass(kw_only=True)
class LatentConfig:
    """A decoder of which every third layer attends through a window, and the others through a latent vector.

    The first layer is dense, the others mix 8 experts of which a token meets 2. Of the layers with a latent vector,
    those of even number compress queries too.
    """

    vocab_size: int = 257
    """Rows of the embedding and of the head; the bytes and the end of a text."""
    hidden_size: int = 16
    """Width of the residual stream."""
    num_layers: int = 4
    """Layers of the stack; the second, the fifth and so on have windows of 5 tokens."""
    num_heads: int = 4
    """Query heads; where there is a window, two share a key-value head."""
    inner_size: int = 12
    """Inner width of the dense layer and of each expert."""

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Self:
        """From a `config.json` of model type `xtuner_core_latent`."""
        return cls(**{name: value for name, value in config.items() if name in cls.__dataclass_fields__})

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` that `from_hf` reads."""
        return {"model_type": "xtuner_core_latent", **asdict(self)}

    def parameter_count(self) -> ParameterCount:
        """By formula."""
        table = self.vocab_size * self.hidden_size
        norms = self.hidden_size * (2 * self.num_layers + 1) + sum(map(self._latent_norms, range(self.num_layers)))
        active = self._matrices(TOP_K) + norms + table
        return ParameterCount(total=self._matrices(EXPERTS) + norms + 2 * table, active=active)

    def flops(self, lengths: Sequence[int]) -> int:
        """Six operations a weight and token, and the causal half of attention, windows or not."""
        weights = self._matrices(TOP_K) + self.vocab_size * self.hidden_size
        # Two products, of as many channels as a score and a value have, forward and twice backward, the causal half.
        channels = self.num_layers * (CONTENT + ROTARY + VALUE)
        channels -= sum(map(is_windowed, range(self.num_layers))) * (CONTENT + ROTARY - VALUE)
        attention = 3 * self.num_heads * channels * sum(length**2 for length in lengths)
        return 6 * weights * sum(lengths) + attention

    def _latent_norms(self, layer: int) -> int:
        if is_windowed(layer):
            return 0
        return LATENT + (QUERY_LATENT if is_compressed(layer) else 0)

    def _attention(self, layer: int) -> int:
        """Entries of the matrices of a layer's attention."""
        width, heads = self.hidden_size, self.num_heads
        if is_windowed(layer):
            return width * VALUE * 3 * heads
        queries = heads * (CONTENT + ROTARY)
        keys = width * (LATENT + ROTARY) + LATENT * heads * (CONTENT + VALUE) + heads * VALUE * width
        return keys + ((width + queries) * QUERY_LATENT if is_compressed(layer) else width * queries)

    def _matrices(self, experts: int) -> int:
        """Entries of the layers' matrices, with so many experts of each layer."""
        mixture = (self.num_layers - 1) * (EXPERTS + 3 * experts * self.inner_size)
        attention = sum(map(self._attention, range(self.num_layers)))
        return attention + self.hidden_size * (3 * self.inner_size + mixture)


def is_windowed(layer: int) -> bool:
    """Whether a layer attends through a window."""
    return layer % 3 == 1


def is_compressed(layer: int) -> bool:
    """Whether a layer without a window makes its queries of a latent vector."""
    return layer % 2 == 0


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="a model with latent and windowed attention, small enough for a test")


@hookimpl
def xtuner_models() -> Iterable[ModelProvider[Any]]:
    """Offer the model."""
    yield ModelProvider(
        name="latent",
        factory="xtuner_core.testing.latent_model:build",
        config="xtuner_core.testing.latent:LatentConfig",
        hf_model_types=("xtuner_core_latent",),
        summary="some twenty thousand parameters; latent and windowed attention, dense and mixed layers",
    )
