"""Sizes of the published models, as their `config.json` gives them, and a tiny one.

Sources: the `config.json` of HuggingFaceTB/SmolLM2-135M and SmolLM2-360M, and of meta-llama/Llama-3.2-1B and
Llama-3.1-8B (Grattafiori et al. 2024, arXiv 2407.21783, table 3).
"""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 192,
    "num_layers": 4,
    "num_heads": 6,
    "num_kv_heads": 2,
    "head_dim": 32,
    "intermediate_size": 512,
    "tie_word_embeddings": True,
}

_SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "rope_theta": 100000.0,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 8192,
    "bos_token_id": 0,
    "eos_token_id": [0],
}

SMOLLM2_135M: dict[str, Any] = _SMOLLM2 | {
    "hidden_size": 576,
    "num_layers": 30,
    "num_heads": 9,
    "num_kv_heads": 3,
    "intermediate_size": 1536,
    "initializer_range": 0.041666666666666664,
}

SMOLLM2_360M: dict[str, Any] = _SMOLLM2 | {
    "hidden_size": 960,
    "num_layers": 32,
    "num_heads": 15,
    "num_kv_heads": 5,
    "intermediate_size": 2560,
    "initializer_range": 0.02,
}

_LLAMA_3: dict[str, Any] = {
    "vocab_size": 128256,
    "num_heads": 32,
    "num_kv_heads": 8,
    "rope_theta": 500000.0,
    "rope_type": "llama3",
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_original_positions": 8192,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072,
    "bos_token_id": 128000,
    "eos_token_id": [128001],
}

LLAMA_3_2_1B: dict[str, Any] = _LLAMA_3 | {
    "hidden_size": 2048,
    "num_layers": 16,
    "head_dim": 64,
    "intermediate_size": 8192,
    "tie_word_embeddings": True,
    "rope_factor": 32.0,
}

LLAMA_3_1_8B: dict[str, Any] = _LLAMA_3 | {
    "hidden_size": 4096,
    "num_layers": 32,
    "head_dim": 128,
    "intermediate_size": 14336,
    "rope_factor": 8.0,
}
