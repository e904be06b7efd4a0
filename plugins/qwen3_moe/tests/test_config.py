"""The configuration: what it refuses, and its way to `config.json` and back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig
from xtuner_core_qwen3_moe.presets import A3B_30B, A22B_235B, TINY

PUBLISHED_30B = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "decoder_sparse_step": 1,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
"""The keys of the `config.json` of Qwen/Qwen3-30B-A3B."""

ODD = {
    "tie_word_embeddings": True,
    "attention_bias": True,
    "mlp_only_layers": [1],
    "decoder_sparse_step": 2,
    "norm_topk_prob": False,
    "balance_coefficient": 0.01,
    "balance_scope": "micro_batch",
    "z_coefficient": 0.002,
    "eos_token_id": [3, 4],
    "pad_token_id": 0,
    "bos_token_id": 1,
    "rope_theta": 123.0,
    "initializer_range": 0.5,
}


def test_the_published_file_gives_the_preset():
    assert Qwen3MoeConfig.from_hf(PUBLISHED_30B) == Qwen3MoeConfig(**A3B_30B)


@pytest.mark.parametrize("values", [{}, TINY, A3B_30B, A22B_235B, ODD])
def test_a_configuration_survives_the_way_to_config_json_and_back(values):
    config = Qwen3MoeConfig(**values)
    assert Qwen3MoeConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config


@pytest.mark.parametrize("values", [{}, A3B_30B, ODD])
def test_transformers_reads_what_is_written_and_writes_what_is_read(values):
    from transformers import Qwen3MoeConfig as TheirConfig

    config = Qwen3MoeConfig(**values)
    theirs = TheirConfig(**config.to_hf())
    assert theirs.num_experts == config.num_experts
    assert theirs.rope_parameters == {"rope_type": "default", "rope_theta": config.rope_theta}
    assert Qwen3MoeConfig.from_hf(json.loads(theirs.to_json_string())) == config


def test_missing_optional_keys_mean_what_transformers_takes_them_to_mean():
    from transformers import Qwen3MoeConfig as TheirConfig

    required = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    required += ("intermediate_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok")
    bare = {key: PUBLISHED_30B[key] for key in (*required, "model_type")}
    assert Qwen3MoeConfig.from_hf(bare) == Qwen3MoeConfig.from_hf(json.loads(TheirConfig(**bare).to_json_string()))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e6}}, "'llama3'"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "rope_parameters"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "rope_theta twice"),
        ({"use_sliding_window": True, "sliding_window": 4096}, "use_sliding_window"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"model_type": "qwen3"}, "model_type"),
        ({"rope_parameters": {"rope_type": "default", "factor": 2.0}}, "factor beside it"),
        ({"logit_scale": 2.0}, "logit_scale"),
        ({"num_experts": None}, "num_experts"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": "48"}, "num_hidden_layers"),
    ],
)
def test_what_the_model_does_not_compute_is_refused_by_key(change, named):
    with pytest.raises(ValueError, match=named):
        Qwen3MoeConfig.from_hf(PUBLISHED_30B | change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_heads": 5}, "num_heads must be a multiple of num_kv_heads"),
        ({"head_dim": 31}, "head_dim must be even"),
        ({"top_k": 9}, "top_k must be at most num_experts"),
        ({"mlp_only_layers": [4]}, "mlp_only_layers"),
        ({"balance_scope": "step"}, "balance_scope"),
        ({"z_coefficient": -1.0}, "z_coefficient"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_one_sentence(change, named):
    with pytest.raises(ValueError, match=named):
        Qwen3MoeConfig(**change)


def test_it_is_a_structured_configuration_of_omegaconf():
    merged = OmegaConf.merge(OmegaConf.structured(Qwen3MoeConfig), ODD)
    assert OmegaConf.to_object(merged) == Qwen3MoeConfig(**ODD)


def test_entry_module_and_configuration_import_no_torch():
    program = (
        "import sys, xtuner_core_qwen3_moe.plugin as plugin, xtuner_core_qwen3_moe.config as config;"
        "[provider] = plugin.xtuner_models(); plugin.xtuner_plugin();"
        "[config.Qwen3MoeConfig(**preset.values).parameter_count() for preset in provider.presets];"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
