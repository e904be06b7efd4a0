"""The model computes what `transformers.LlamaForCausalLM` computes, in every combination of its switches."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from xtuner_core_llama.config import LlamaConfig

from xtuner_core.contracts.batch import Document, pack
from xtuner_core.contracts.sampling import Sampling
from xtuner_core.engine.generate import generate
from xtuner_core.hf.read import read_weights
from xtuner_core.hf.write import export
from xtuner_core.host import Host
from xtuner_core.testing import build_model, random_documents, tiny_host
from xtuner_core.testing.parity import Comparison, Only64, compare, reference_logits, transformers_model

SCALED: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "rope_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_original_positions": 64,
}
"""So short a context that some channels are slow, some fast and some between."""
FEATURES: tuple[dict[str, Any], ...] = (
    {"num_heads": 4, "num_kv_heads": 4, "tie_word_embeddings": True},
    {"num_heads": 4, "num_kv_heads": 1, "attention_bias": True} | SCALED,
    {"num_heads": 8, "num_kv_heads": 2, "mlp_bias": True},
    {"num_heads": 8, "num_kv_heads": 1, "mlp_bias": True, "attention_bias": True, "tie_word_embeddings": True},
    {"num_heads": 12, "num_kv_heads": 3, "num_layers": 4, "tie_word_embeddings": True} | SCALED,
)


def random_config(case: int) -> LlamaConfig:
    draw = random.Random(case)
    sizes = {
        "vocab_size": draw.randrange(40, 90),
        "hidden_size": draw.choice((24, 48, 72)),
        "num_layers": 3,
        "head_dim": draw.choice((8, 10, 16)),
        "intermediate_size": draw.randrange(20, 60),
        "rope_theta": draw.choice((1e4, 1e6)),
    }
    return LlamaConfig(**(sizes | FEATURES[case]))


@pytest.fixture(scope="module")
def host() -> Host:
    return tiny_host(["llama"])


def made(host: Host, case: int, dtype: torch.dtype) -> nn.Module:
    return build_model(host, "llama", random_config(case), dtype, seed=case, spread=0.2)


def compared(host: Host, case: int, dtype: torch.dtype) -> Comparison:
    """Ours and that of `transformers` with the same weights, over the same documents."""
    model = made(host, case, dtype)
    reference = partial(transformers_model, "LlamaForCausalLM", model.config.to_hf(), dtype)
    documents = random_documents(model.config.vocab_size, count=4, longest=40, seed=case)
    return compare(model, reference, documents, exact=dtype == torch.float64)


@pytest.mark.parametrize("case", range(len(FEATURES)))
def test_float64_logits_and_gradients_equal_those_of_transformers(host, case):
    found = compared(host, case, torch.float64)
    assert found.logits < 1e-9
    assert found.worst(1e-8) == {}


@pytest.mark.parametrize("case", range(len(FEATURES)))
def test_float32_logits_and_gradients_are_those_of_transformers_as_it_ships(host, case):
    found = compared(host, case, torch.float32)
    assert found.logits < 1e-5
    assert found.worst(1e-5) == {}


def test_the_reference_computes_in_float32_where_nothing_widens_it(host):
    model = made(host, 0, torch.float64)
    theirs = transformers_model("LlamaForCausalLM", model.config.to_hf(), torch.float64)
    with Only64(), pytest.raises(AssertionError, match=r"torch\.float32"):
        reference_logits(theirs, random_documents(model.config.vocab_size, count=2))


@pytest.mark.parametrize("case", [1, 4])
def test_an_export_continues_prompts_alike_in_transformers_and_what_that_saves_is_read_back(host, case, tmp_path):
    from transformers import AutoModelForCausalLM

    ours = made(host, case, torch.float32).eval()
    folder = export(ours, tmp_path / "ours", shard_bytes=20_000)
    theirs, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    prompts = ([5], [1, 4, 1, 5, 9, 2, 6], [33, 2, 3])
    samples = generate(ours, prompts, Sampling(max_tokens=12, temperature=0), device="cpu")
    for prompt, sample in zip(prompts, samples, strict=True):
        continued = [*prompt, *sample.token_ids]
        options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        expected = theirs.generate(torch.tensor([prompt]), **options)
        assert expected[0].tolist() == continued
        with torch.no_grad():
            mine = ours.head(ours(pack([Document.of(continued)])).predictions[0].hidden_TD)
            assert (mine - theirs(torch.tensor([continued])).logits[0]).abs().max() < 1e-4
    theirs.save_pretrained(tmp_path / "theirs")
    other = build_model(host, "llama", ours.config, torch.float32, seed=9)
    assert read_weights(other, other.weight_map(), tmp_path / "theirs").casts == {}
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in ours.state_dict().items())
