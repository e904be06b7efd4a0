"""Configuration of the strategy recompute. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xtuner_core.config.layer_ranges import LayerRanges


@dataclass(kw_only=True)
class RecomputeConfig:
    """Which modules are computed again in the backward pass, and what of them is kept all the same.

    Of a chosen module its inputs are kept, the experts that its routers chose with their weights, and what `keep` says.
    Several picks of this strategy, each under a name of its own, treat layers differently.

    | recomputed | settings |
    | --- | --- |
    | nothing | the strategy not picked, or picked for other layers |
    | norms and activations | `role: layer`, `keep: products` |
    | attention | `role: attn` |
    | whole layers | `role: layer` |
    """

    role: str = "layer"
    """Role of the modules, and everything below it; the outermost modules that match count."""
    layers: str | None = None
    """Layers that they lie in, counted from 0 (`0-3,8,20-`); None means all."""
    keep: Literal["nothing", "products"] = "nothing"
    """`products` keeps the outputs of matrix products, of attention and of the mixture of experts with all that was
    sent between ranks for it, so that norms, rotations, activations and sums alone are computed again."""
    offload: bool = False
    """Keep the modules' inputs in host memory until the backward pass comes to them; refused on a device whose memory
    the host's is."""

    def __post_init__(self) -> None:
        if self.layers is not None:
            LayerRanges.parse(self.layers)
