"""The entry module: what this distribution offers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import ModelProvider, PluginInfo, Preset, hookimpl

TINY = Preset(
    name="tiny",
    summary="1.0 million parameters, for a laptop",
    values={"vocab_size": 4096, "hidden_size": 128, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2},
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="a dense decoder, to start a plugin from")


@hookimpl
def xtuner_models() -> Iterable[ModelProvider[Any]]:
    """Offer the model family."""
    yield ModelProvider(
        name="acme_dense",
        factory="acme_xtuner_template.model:build",
        config="acme_xtuner_template.config:AcmeDenseConfig",
        hf_model_types=("acme_dense",),
        presets=(TINY,),
        summary="grouped-query attention and SwiGLU, untied head",
    )
