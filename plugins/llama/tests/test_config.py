"""The configuration: what it refuses, and its way to `config.json` and back."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf
from xtuner_core_llama.config import LlamaConfig
from xtuner_core_llama.presets import LLAMA_3_1_8B, LLAMA_3_2_1B, SMOLLM2_135M, SMOLLM2_360M, TINY

PUBLISHED_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}
"""The keys of the `config.json` of meta-llama/Llama-3.2-1B."""

PUBLISHED_SMOL = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "vocab_size": 49152,
}
"""The keys of the `config.json` of HuggingFaceTB/SmolLM2-135M."""

ODD = {
    "tie_word_embeddings": True,
    "attention_bias": True,
    "mlp_bias": True,
    "head_dim": 48,
    "eos_token_id": [3, 4],
    "pad_token_id": 0,
    "bos_token_id": 1,
    "rope_theta": 123.0,
    "initializer_range": 0.5,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
EVERY = [{}, TINY, SMOLLM2_135M, SMOLLM2_360M, LLAMA_3_2_1B, LLAMA_3_1_8B, ODD]


@pytest.mark.parametrize(("file", "preset"), [(PUBLISHED_1B, LLAMA_3_2_1B), (PUBLISHED_SMOL, SMOLLM2_135M)])
def test_a_published_file_gives_the_preset(file, preset):
    assert LlamaConfig.from_hf(file) == LlamaConfig(**preset)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        (SMOLLM2_135M, 134_515_008),
        (SMOLLM2_360M, 361_821_120),
        (LLAMA_3_2_1B, 1_235_814_400),
        (LLAMA_3_1_8B, 8_030_261_248),
    ],
)
def test_a_preset_has_as_many_parameters_as_its_model_card_says(preset, parameters):
    assert LlamaConfig(**preset).parameter_count().total == parameters


@pytest.mark.parametrize("values", EVERY)
def test_a_configuration_survives_the_way_to_config_json_and_back(values):
    config = LlamaConfig(**values)
    assert LlamaConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config


@pytest.mark.parametrize("values", EVERY)
def test_transformers_reads_what_is_written_and_writes_what_is_read(values):
    from transformers import LlamaConfig as TheirConfig

    config = LlamaConfig(**values)
    theirs = TheirConfig(**config.to_hf())
    assert theirs.head_dim == config.head_dim
    assert theirs.rope_parameters["rope_theta"] == config.rope_theta
    assert theirs.rope_parameters["rope_type"] == config.rope_type
    assert theirs.rope_parameters.get("factor") == config.rope_factor
    assert LlamaConfig.from_hf(json.loads(theirs.to_json_string())) == config


def test_missing_optional_keys_mean_what_transformers_takes_them_to_mean():
    from transformers import LlamaConfig as TheirConfig

    required = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    bare = {key: PUBLISHED_1B[key] for key in (*required, "model_type")}
    assert LlamaConfig.from_hf(bare) == LlamaConfig.from_hf(json.loads(TheirConfig(**bare).to_json_string()))


def test_keys_that_change_nothing_are_passed_over():
    beside = {"_model_name_or_path": "here", "unk_token_id": 0, "dtype": "bfloat16", "sliding_window": None}
    assert LlamaConfig.from_hf(PUBLISHED_1B | beside) == LlamaConfig.from_hf(PUBLISHED_1B)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"rope_scaling": None, "rope_parameters": {"rope_type": "longrope"}}, "'longrope'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_scaling": {"rope_type": "llama3", **LLAMA3, "beta": 1}}, "beta"),
        ({"rope_parameters": {"rope_type": "llama3", **LLAMA3}}, "they differ"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "rope_theta twice"),
        ({"rope_interleaved": True}, "rope_interleaved"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"model_type": "mistral"}, "model_type"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": "48"}, "num_hidden_layers"),
        ({"num_key_value_heads": 2.5}, "num_key_value_heads"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"mlp_bias": "yes"}, "mlp_bias"),
        ({"logit_scale": 2.0}, "logit_scale"),
    ],
)
def test_what_the_model_does_not_compute_is_refused_by_key(change, named):
    with pytest.raises(ValueError, match=named):
        LlamaConfig.from_hf(PUBLISHED_1B | change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_heads": 5, "hidden_size": 190}, "num_heads must be a multiple of num_kv_heads"),
        ({"hidden_size": 190}, "hidden_size must be a multiple of num_heads"),
        ({"head_dim": 31}, "head_dim must be even"),
        ({"rope_type": "llama3"}, "llama3 needs rope_factor"),
        ({"rope_factor": 2.0}, "default has no use for rope_factor"),
        (LLAMA_3_1_8B | {"rope_high_freq_factor": 1.0}, "rope_high_freq_factor must be above"),
        ({"rope_type": "yarn"}, "rope_type must be default or llama3"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_one_sentence(change, named):
    with pytest.raises(ValueError, match=named):
        LlamaConfig(**change)


def test_it_is_a_structured_configuration_of_omegaconf():
    for values in (ODD, LLAMA_3_1_8B):
        merged = OmegaConf.merge(OmegaConf.structured(LlamaConfig), values)
        assert OmegaConf.to_object(merged) == LlamaConfig(**values)
