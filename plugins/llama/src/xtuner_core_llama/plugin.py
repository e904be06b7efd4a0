"""The entry module: what this distribution offers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import ModelProvider, PluginInfo, Preset, hookimpl
from xtuner_core_llama.presets import LLAMA_3_1_8B, LLAMA_3_2_1B, SMOLLM2_135M, SMOLLM2_360M, TINY

PRESETS = (
    Preset(name="tiny", summary="2.4 million parameters, for a laptop and for tests", values=TINY),
    Preset(name="smollm2-135m", summary="SmolLM2-135M: 134.5 million parameters", values=SMOLLM2_135M),
    Preset(name="smollm2-360m", summary="SmolLM2-360M: 361.8 million parameters", values=SMOLLM2_360M),
    Preset(name="llama3.2-1b", summary="Llama-3.2-1B: 1.24 billion parameters", values=LLAMA_3_2_1B),
    Preset(name="llama3.1-8b", summary="Llama-3.1-8B: 8.03 billion parameters", values=LLAMA_3_1_8B),
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Describe the plugin."""
    return PluginInfo(contract="1.0", summary="dense Llama language models")


@hookimpl
def xtuner_models() -> Iterable[ModelProvider[Any]]:
    """Offer the model family."""
    yield ModelProvider(
        name="llama",
        factory="xtuner_core_llama.model:build",
        config="xtuner_core_llama.config:LlamaConfig",
        hf_model_types=("llama",),
        presets=PRESETS,
        summary="Llama: grouped key-value heads, SwiGLU, rotary positions, plain or scaled as in Llama 3.1",
    )
