"""Configuration of the parallelism fsdp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class FsdpConfig:
    """How many ranks share the weights, and when they are put together."""

    replicate: int = 1
    """Copies of the whole arrangement, each over `1/replicate` of the ranks; gradients are summed over them (HSDP)."""
    shard: int | str = "auto"
    """Ranks that share each weight outside the experts, those of a sequence not counted; `auto` takes all that are
    left."""
    expert_shard: int | str = "auto"
    """Ranks that share each weight of an expert, beside those that hold other experts; `auto` takes all that are
    left."""
    reshard_after_forward: Literal["always", "never"] = "always"
    """`always` gathers a layer's weights for its forward and again for its backward pass; `never` gathers them once a
    step and holds them in the compute dtype until its end."""
    prefetch: int = 1
    """Layers whose weights are asked for ahead of the one that is computed, in both directions; 0 leaves it to PyTorch,
    which asks for one when the host gets there."""
    reduce: Literal["step", "micro_batch"] = "step"
    """When gradients are summed over ranks: once a `step`, each rank holding whole gradients until then, or after each
    `micro_batch`, which takes less memory and more traffic."""
    offload: bool = False
    """Whether the shards of parameters, gradients and optimizer states live in host memory, where the optimizer then
    works; refused on a single rank."""

    def __post_init__(self) -> None:
        if self.replicate < 1:
            raise ValueError(f"replicate must be a number of ranks, 1 at least, not {self.replicate}")
        for name in ("shard", "expert_shard"):
            value = getattr(self, name)
            if value != "auto" and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a number of ranks, 1 at least, or auto, not {value!r}")
        if self.prefetch < 0:
            raise ValueError(f"prefetch must not be negative, not {self.prefetch}")
