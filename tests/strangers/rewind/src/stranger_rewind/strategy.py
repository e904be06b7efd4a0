"""The strategy rewind."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from xtuner_core.contracts.parallelism import Parallelism, RankContext
from xtuner_core.nn import select


class Rewound:
    """Mixed into the class of a module that is to be computed again."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What the module itself returns."""
        return checkpoint(super().forward, *arguments, use_reentrant=False, **named)  # type: ignore[misc]


class Rewind(Parallelism):
    """Changes the class of every module of a role, so that names, roles and operators stay as they are."""

    def __init__(self, config: Any) -> None:
        self.role = config.role

    def apply(self, model: nn.Module, context: RankContext) -> nn.Module:
        """The same model; its modules of the role keep their inputs alone."""
        for found in select(model, self.role):
            kind = type(found.module)
            found.module.__class__ = type(f"Rewound{kind.__name__}", (Rewound, kind), {})
        return model
