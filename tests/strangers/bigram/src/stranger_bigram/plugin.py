"""Offers the model bigram."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import ModelProvider, PluginInfo, Preset, hookimpl

TINY = Preset(name="tiny", summary="for a test", values={"width": 32, "inner": 48, "num_layers": 2})
WIDE = Preset(name="wide", alias="bigram-wide", values={"width": 256})


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="a language model that looks one token back")


@hookimpl
def xtuner_models() -> Iterable[ModelProvider[Any]]:
    """Offer the model."""
    yield ModelProvider(
        name="bigram",
        factory="stranger_bigram.model:Bigram",
        config="stranger_bigram.config:BigramConfig",
        hf_model_types=("bigram",),
        presets=(TINY, WIDE),
        summary="the next token from the last one alone",
    )
