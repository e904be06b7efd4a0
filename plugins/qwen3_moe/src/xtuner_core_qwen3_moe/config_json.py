"""Between the fields of `Qwen3MoeConfig` and the keys of a Hugging Face `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xtuner_core.hf.keys import ROPE_KEYS, ConfigKeys, read_rope

if TYPE_CHECKING:
    from xtuner_core_qwen3_moe.config import Qwen3MoeConfig

KEYS = ConfigKeys(
    model_type="qwen3_moe",
    required={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "num_key_value_heads": "num_kv_heads",
        "intermediate_size": "intermediate_size",
        "moe_intermediate_size": "moe_intermediate_size",
        "num_experts_per_tok": "top_k",
    },
    optional={
        "norm_topk_prob": ("norm_topk_prob", False),
        "decoder_sparse_step": ("decoder_sparse_step", 1),
        "mlp_only_layers": ("mlp_only_layers", []),
        "tie_word_embeddings": ("tie_word_embeddings", False),
        "attention_bias": ("attention_bias", False),
        "rms_norm_eps": ("rms_norm_eps", 1e-6),
        "initializer_range": ("initializer_range", 0.02),
        "max_position_embeddings": ("max_position_embeddings", 32768),
        "router_aux_loss_coef": ("balance_coefficient", 0.001),
        "router_z_loss_coef": ("z_coefficient", 0.0),
        "router_aux_loss_scope": ("balance_scope", "document"),
        "bos_token_id": ("bos_token_id", None),
        "pad_token_id": ("pad_token_id", None),
    },
    only={
        "hidden_act": ("silu",),
        "attention_dropout": (0,),
        "use_sliding_window": (False,),
        "partial_rotary_factor": (1,),
        "quantization_config": (),
        "layer_types": (),
    },
    own=ROPE_KEYS | {"num_experts", "num_local_experts", "head_dim", "eos_token_id"},
    # What a sliding window would be, were it used.
    passed_over=frozenset({"sliding_window", "max_window_layers"}),
)

_OURS = frozenset({"router_z_loss_coef", "router_aux_loss_scope"})
"""Keys that `transformers` does not know; written only where they say something."""


def read(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the configuration.

    :raises ValueError: a key is missing, unknown, or asks for something that this model does not do.
    """
    values = KEYS.read(config)
    experts = "num_local_experts" if config.get("num_local_experts") is not None else "num_experts"
    values["num_experts"] = KEYS.integer(config, experts)
    values["head_dim"] = KEYS.integer(config, "head_dim", values["hidden_size"] // max(values["num_heads"], 1))
    eos = config.get("eos_token_id")
    values["eos_token_id"] = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    values["mlp_only_layers"] = list(values["mlp_only_layers"])
    values["rope_theta"], kind, numbers = read_rope(config)
    if kind != "default" or numbers:
        beside = f" and {', '.join(numbers)} beside it" if numbers else ""
        raise ValueError(f"config.json has rope_type = {kind!r}{beside}; qwen3_moe computes 'default' only")
    return values


def write(config: Qwen3MoeConfig) -> dict[str, Any]:
    """Keys in the form of the published checkpoints, which `transformers` 4.5x and 5.x both read."""
    eos = list(config.eos_token_id)
    written = KEYS.write(config)
    for key in _OURS:
        name, default = KEYS.optional[key]
        if getattr(config, name) == default:
            del written[key]
    return written | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "head_dim": config.head_dim,
        "num_experts": config.num_experts,
        "mlp_only_layers": list(config.mlp_only_layers),
        "eos_token_id": None if not eos else eos[0] if len(eos) == 1 else eos,
    }
