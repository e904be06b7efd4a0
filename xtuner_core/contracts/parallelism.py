"""What a parallelism strategy is. On one rank its contract is small; views of many ranks come with the launcher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from xtuner_core.contracts.precision import PrecisionPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class RankContext:
    """Where a strategy stands when it applies itself."""

    rank: int
    world_size: int
    torch_device: torch.device
    policy: PrecisionPolicy


class Parallelism(Protocol):
    """Applies itself to a model that it does not know, by role (`xtuner_core.nn.roles`)."""

    def apply(self, model: nn.Module, context: RankContext) -> nn.Module:
        """Wrap, shard or replace modules of `model`, which is on the meta device, and return it.

        Parameters keep their qualified names, so that the weight map still finds them.
        """


class ParallelismFactory(Protocol):
    """What a parallelism provider's `factory` names."""

    def __call__(self, config: Any) -> Parallelism:
        """Build the strategy of `config`."""
