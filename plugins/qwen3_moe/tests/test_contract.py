"""Qwen3-MoE keeps the contract: the suites of `xtuner_core.testing`, against `transformers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from xtuner_core.testing import PluginContract, ReferencedModelContract

SMALL: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 24,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 28,
    "moe_intermediate_size": 14,
    "num_experts": 6,
    "balance_coefficient": 0.3,
    "z_coefficient": 0.2,
}


class TestQwen3MoePlugin(PluginContract):
    plugin = "qwen3_moe"


class TestQwen3Moe(ReferencedModelContract):
    plugin = "qwen3_moe"
    reference = "Qwen3MoeForCausalLM"
    configs = (
        SMALL,
        SMALL | {"mlp_only_layers": [0], "tie_word_embeddings": True, "norm_topk_prob": False, "attention_bias": True},
        SMALL | {"num_kv_heads": 1, "balance_scope": "micro_batch"},
    )

    def reference_tensor(self, tensors: Mapping[str, Tensor], key: str) -> Tensor:
        """`transformers` stacks the experts in memory, gate above up."""
        prefix, experts, rest = key.partition(".experts.")
        if not experts:
            return tensors[key]
        expert, name, _ = rest.split(".")
        if name == "down_proj":
            return tensors[f"{prefix}.experts.down_proj"][int(expert)]
        gate, up = tensors[f"{prefix}.experts.gate_up_proj"][int(expert)].chunk(2)
        return gate if name == "gate_proj" else up
