"""Offers the algorithm pretrain and its recipes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import AlgorithmProvider, PluginInfo, Recipe, hookimpl

PRETRAIN: AlgorithmProvider[Any] = AlgorithmProvider(
    name="pretrain",
    factory="xtuner_core.builtin.pretrain.algorithm:build",
    config="xtuner_core.builtin.pretrain.config:PretrainConfig",
    loss="cross_entropy",
    recipe="pretrain",
    demo="pretrain_demo",
    summary="next-token prediction on packed plain text, evaluated in bits per byte",
)
RECIPES = (
    Recipe(
        name="pretrain",
        file="xtuner_core.builtin.pretrain:recipes/pretrain.yaml",
        summary="pre-training goes on, of a model and with text of your own",
    ),
    Recipe(
        name="pretrain_demo",
        file="xtuner_core.builtin.pretrain:recipes/pretrain_demo.yaml",
        summary="a small mixture of experts on the King James Bible, for a laptop",
        default=True,
    ),
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="pre-training on plain text", recipes=RECIPES)


@hookimpl
def xtuner_algorithms() -> Iterable[AlgorithmProvider[Any]]:
    """Offer pre-training."""
    return [PRETRAIN]
