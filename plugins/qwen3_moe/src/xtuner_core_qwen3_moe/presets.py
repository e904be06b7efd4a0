"""Sizes of the published models, as their `config.json` gives them, and a tiny one.

Sources: Qwen3 technical report (arXiv 2505.09388, table 2) and the `config.json` of Qwen/Qwen3-30B-A3B and
Qwen/Qwen3-235B-A22B.
"""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 192,
    "num_layers": 3,
    "num_heads": 6,
    "num_kv_heads": 3,
    "head_dim": 32,
    "intermediate_size": 384,
    "moe_intermediate_size": 192,
    "num_experts": 8,
    "top_k": 2,
    "norm_topk_prob": True,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
}

_PUBLISHED: dict[str, Any] = {
    "vocab_size": 151936,
    "num_kv_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "top_k": 8,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 40960,
    "bos_token_id": 151643,
    "eos_token_id": [151645],
}

A3B_30B: dict[str, Any] = _PUBLISHED | {
    "hidden_size": 2048,
    "num_layers": 48,
    "num_heads": 32,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
}

A22B_235B: dict[str, Any] = _PUBLISHED | {
    "hidden_size": 4096,
    "num_layers": 94,
    "num_heads": 64,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
}
