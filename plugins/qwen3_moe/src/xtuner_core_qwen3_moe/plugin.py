"""The entry module: what this distribution offers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import ModelProvider, PluginInfo, Preset, hookimpl
from xtuner_core_qwen3_moe.presets import A3B_30B, A22B_235B, TINY

PRESETS = (
    Preset(name="tiny", summary="3.8 million parameters, for a laptop and for tests", values=TINY),
    Preset(
        name="30b-a3b",
        alias="qwen3-30b-a3b",
        summary="Qwen3-30B-A3B: 30.5 billion parameters, 3.0 billion active",
        values=A3B_30B,
    ),
    Preset(
        name="235b-a22b",
        alias="qwen3-235b-a22b",
        summary="Qwen3-235B-A22B: 235.1 billion parameters, 21.6 billion active",
        values=A22B_235B,
    ),
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Describe the plugin."""
    return PluginInfo(contract="1.0", summary="Qwen3 mixture-of-experts language models")


@hookimpl
def xtuner_models() -> Iterable[ModelProvider[Any]]:
    """Offer the model family."""
    yield ModelProvider(
        name="qwen3_moe",
        factory="xtuner_core_qwen3_moe.model:build",
        config="xtuner_core_qwen3_moe.config:Qwen3MoeConfig",
        hf_model_types=("qwen3_moe",),
        presets=PRESETS,
        depends_on_split={"balance_scope=micro_batch": "the load-balancing loss takes its means over each micro-batch"},
        summary="Qwen3-MoE: QK-norm, grouped key-value heads, dropless softmax top-k experts",
    )
