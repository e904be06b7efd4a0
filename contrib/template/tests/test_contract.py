"""The plugin keeps the contract. `acme_dense` computes what Llama computes, so `transformers` is its reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xtuner_core.testing import PluginContract, ReferencedModelContract

SMALL = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "intermediate_size": 40,
}


class TestPlugin(PluginContract):
    plugin = "acme_dense"


class TestModel(ReferencedModelContract):
    plugin = "acme_dense"
    reference = "LlamaForCausalLM"
    configs = (SMALL, SMALL | {"num_kv_heads": 4, "rope_theta": 100.0})

    def reference_config(self, config: Any) -> Mapping[str, Any]:
        """The keys are Llama's; a model of its own says `model_type` only."""
        return {**config.to_hf(), "model_type": "llama"}
