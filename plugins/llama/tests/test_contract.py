"""Llama keeps the contract: the suites of `xtuner_core.testing`, against `transformers`."""

from __future__ import annotations

from typing import Any

from xtuner_core.testing import PluginContract, ReferencedModelContract

SMALL: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 24,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 28,
}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "rope_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_original_positions": 32,
}


class TestLlamaPlugin(PluginContract):
    plugin = "llama"


class TestLlama(ReferencedModelContract):
    plugin = "llama"
    reference = "LlamaForCausalLM"
    configs = (SMALL, SMALL | LLAMA3 | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True})
