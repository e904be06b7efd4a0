"""Offers the algorithm sft and its recipes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import AlgorithmProvider, PluginInfo, Recipe, hookimpl

SFT: AlgorithmProvider[Any] = AlgorithmProvider(
    name="sft",
    factory="xtuner_core.builtin.sft.algorithm:build",
    config="xtuner_core.builtin.sft.config:SftConfig",
    loss="cross_entropy",
    recipe="sft",
    demo="sft_demo",
    summary="supervised fine-tuning on conversations, by the tokenizer's own chat template",
)
RECIPES = (
    Recipe(
        name="sft",
        file="xtuner_core.builtin.sft:recipes/sft.yaml",
        summary="full fine-tuning of a model and on data of your own",
    ),
    Recipe(
        name="sft_demo",
        file="xtuner_core.builtin.sft:recipes/sft_demo.yaml",
        summary="a small mixture of experts learns to answer questions about the King James Bible, for a laptop",
    ),
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="supervised fine-tuning", recipes=RECIPES)


@hookimpl
def xtuner_algorithms() -> Iterable[AlgorithmProvider[Any]]:
    """Offer supervised fine-tuning."""
    return [SFT]
