"""Between the fields of `LlamaConfig` and the keys of a Hugging Face `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xtuner_core.hf.keys import ROPE_KEYS, ConfigKeys, read_rope

if TYPE_CHECKING:
    from xtuner_core_llama.config import LlamaConfig

KEYS = ConfigKeys(
    model_type="llama",
    required={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "intermediate_size",
    },
    optional={
        "tie_word_embeddings": ("tie_word_embeddings", False),
        "attention_bias": ("attention_bias", False),
        "mlp_bias": ("mlp_bias", False),
        "rms_norm_eps": ("rms_norm_eps", 1e-6),
        "initializer_range": ("initializer_range", 0.02),
        "max_position_embeddings": ("max_position_embeddings", 2048),
        "pad_token_id": ("pad_token_id", None),
    },
    only={"hidden_act": ("silu",), "attention_dropout": (0,), "rope_interleaved": (False,), "quantization_config": ()},
    own=ROPE_KEYS | {"num_key_value_heads", "head_dim", "bos_token_id", "eos_token_id"},
    # Tensor parallelism of the original training, the names that other tools left, and a note for a browser.
    passed_over=frozenset({"pretraining_tp", "is_llama_config", "transformers.js_config"}),
)

LLAMA3 = {
    "factor": "rope_factor",
    "low_freq_factor": "rope_low_freq_factor",
    "high_freq_factor": "rope_high_freq_factor",
    "original_max_position_embeddings": "rope_original_positions",
}
"""What stands beside `rope_type: llama3`, to the field."""


def read(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the configuration.

    :raises ValueError: a key is missing, unknown, or asks for something that this model does not do.
    """
    values = KEYS.read(config)
    heads = values["num_heads"]
    values["num_kv_heads"] = KEYS.integer(config, "num_key_value_heads", heads)
    values["head_dim"] = KEYS.integer(config, "head_dim", values["hidden_size"] // max(heads, 1))
    # `transformers` takes 1 and 2 where the keys are missing, and none where they are null.
    values["bos_token_id"] = config.get("bos_token_id", 1)
    eos = config.get("eos_token_id", 2)
    values["eos_token_id"] = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    return values | _rope(config)


def write(config: LlamaConfig) -> dict[str, Any]:
    """Keys in the form of the published checkpoints, which `transformers` 4.5x and 5.x both read."""
    eos = list(config.eos_token_id)
    scaling = {"rope_type": "llama3"} | {key: getattr(config, name) for key, name in LLAMA3.items()}
    return KEYS.write(config) | {
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling if config.rope_type == "llama3" else None,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": None if not eos else eos[0] if len(eos) == 1 else eos,
    }


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    theta, kind, numbers = read_rope(config)
    values = {"rope_theta": theta, "rope_type": kind}
    if kind not in ("default", "llama3"):
        raise ValueError(f"config.json has rope_type = {kind!r}; llama computes 'default' or 'llama3' only")
    expected = LLAMA3.keys() if kind == "llama3" else set()
    if numbers.keys() != expected:
        odd = ", ".join(sorted(numbers.keys() ^ expected))
        raise ValueError(f"config.json has rope_type = {kind!r} with too much or too little beside it: {odd}")
    return values | {LLAMA3[key]: value for key, value in numbers.items()}
