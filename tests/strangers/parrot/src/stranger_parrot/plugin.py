"""Offers the algorithm parrot and its recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xtuner_core.api import AlgorithmProvider, PluginInfo, Recipe, hookimpl

RECIPE = Recipe(name="parrot", file="stranger_parrot:parrot.yaml", summary="one text, over and over")


@dataclass(kw_only=True)
class ParrotConfig:
    """What is repeated, and how often."""

    steps: int = 3
    """Optimizer steps."""
    tokens: int = 64
    """Tokens of the text that is repeated."""

    def __post_init__(self) -> None:
        if self.tokens < 2:
            raise ValueError(f"tokens must be at least 2, not {self.tokens}")


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="repeats what it hears", recipes=(RECIPE,))


@hookimpl
def xtuner_algorithms() -> Iterable[AlgorithmProvider[Any]]:
    """Offer the algorithm."""
    yield AlgorithmProvider(
        name="parrot",
        factory="stranger_parrot.algorithm:Parrot",
        config=ParrotConfig,
        loss="cross_entropy",
        recipe="parrot",
        summary="trains on the beginning of the first text over and over",
    )
