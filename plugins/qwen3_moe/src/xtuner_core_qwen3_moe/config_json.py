"""Between the fields of `Qwen3MoeConfig` and the keys of a Hugging Face `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xtuner_core_qwen3_moe.config import Qwen3MoeConfig

_REQUIRED = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "intermediate_size": "intermediate_size",
    "moe_intermediate_size": "moe_intermediate_size",
    "num_experts_per_tok": "top_k",
}
"""Key to field; a file without one of these is refused."""

_OPTIONAL: dict[str, tuple[str, Any]] = {
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
}
"""Key to field and the value that `transformers` takes where the key is missing or null."""

_OURS = frozenset({"router_z_loss_coef", "router_aux_loss_scope"})
"""Keys that `transformers` does not know; written only where they say something."""

_ONLY: dict[str, tuple[Any, ...]] = {
    "model_type": ("qwen3_moe",),
    "hidden_act": ("silu",),
    "attention_dropout": (0, 0.0),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1, 1.0),
    "quantization_config": (),
    "layer_types": (),
}
"""Keys that change what the model computes, and the values that it computes; null and missing are fine."""


def read(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the configuration.

    :raises ValueError: a key is missing, or asks for something that this model does not do.
    """
    _refuse_others(config)
    values: dict[str, Any] = {field: _required(config, key) for key, field in _REQUIRED.items()}
    for key, (field, default) in _OPTIONAL.items():
        given = config.get(key)
        values[field] = default if given is None else given
    experts = "num_local_experts" if config.get("num_local_experts") is not None else "num_experts"
    values["num_experts"] = _required(config, experts)
    head_dim = config.get("head_dim")
    values["head_dim"] = values["hidden_size"] // values["num_heads"] if head_dim is None else head_dim
    eos = config.get("eos_token_id")
    values["eos_token_id"] = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    values["mlp_only_layers"] = list(values["mlp_only_layers"])
    values["rope_theta"] = _rope_theta(config)
    return values


def write(config: Qwen3MoeConfig) -> dict[str, Any]:
    """Keys in the form of the published checkpoints, which `transformers` 4.5x and 5.x both read."""
    eos = list(config.eos_token_id)
    written: dict[str, Any] = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "head_dim": config.head_dim,
        "num_experts": config.num_experts,
        "eos_token_id": None if not eos else eos[0] if len(eos) == 1 else eos,
    }
    written |= {key: getattr(config, field) for key, field in _REQUIRED.items()}
    for key, (field, default) in _OPTIONAL.items():
        value = getattr(config, field)
        if key not in _OURS or value != default:
            written[key] = list(value) if isinstance(value, list) else value
    return written


def _required(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    wrong = "lacks it" if value is None else f"has {value!r}"
    raise ValueError(f"config.json of a qwen3_moe model must give {key} as an integer; this one {wrong}")


def _refuse_others(config: Mapping[str, Any]) -> None:
    for key, allowed in _ONLY.items():
        value = config.get(key)
        if value is not None and value not in allowed:
            supported = " or ".join(repr(item) for item in allowed[:1]) or "none"
            raise ValueError(f"config.json has {key} = {value!r}; qwen3_moe computes {supported} only")


def _rope_theta(config: Mapping[str, Any]) -> float:
    """Read the base from wherever this version of `transformers` wrote it, and refuse any scaling."""
    bases = [] if config.get("rope_theta") is None else [float(config["rope_theta"])]
    for key in ("rope_parameters", "rope_scaling"):
        given = dict(config.get(key) or {})
        kind = given.pop("rope_type", given.pop("type", "default"))
        if given.get("rope_theta") is not None:
            bases.append(float(given["rope_theta"]))
        rest = {name: value for name, value in given.items() if name != "rope_theta" and value is not None}
        if kind != "default" or rest.pop("partial_rotary_factor", 1) != 1 or rest:
            raise ValueError(f"config.json has {key} = {config[key]!r}; qwen3_moe computes rope_type 'default' only")
    if len(set(bases)) > 1:
        raise ValueError(f"config.json gives rope_theta twice, as {bases[0]} and as {bases[1]}")
    return bases[0] if bases else 10000.0
