"""The model computes what `transformers.Qwen3MoeForCausalLM` computes: logits and the gradient of every tensor."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig

from xtuner_core.contracts.batch import Document
from xtuner_core.testing.parity import Comparison, Only64, compare, reference_logits, transformers_model

FEATURES: tuple[dict[str, Any], ...] = (
    {"num_heads": 4, "num_kv_heads": 4, "tie_word_embeddings": True, "norm_topk_prob": True},
    {"num_heads": 4, "num_kv_heads": 1, "norm_topk_prob": False, "decoder_sparse_step": 2},
    {"num_heads": 8, "num_kv_heads": 1, "norm_topk_prob": True, "mlp_only_layers": [0]},
    {
        "num_heads": 8,
        "num_kv_heads": 2,
        "norm_topk_prob": False,
        "tie_word_embeddings": True,
        "attention_bias": True,
    },
    {
        "num_heads": 16,
        "num_kv_heads": 2,
        "norm_topk_prob": True,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [3],
        "num_layers": 4,
    },
)
LENGTHS = (13, 1, 22, 7)


def random_config(case: int) -> Qwen3MoeConfig:
    draw = random.Random(case)
    experts = draw.choice((5, 6, 8))
    sizes = {
        "vocab_size": draw.randrange(40, 90),
        "hidden_size": draw.choice((24, 36, 40)),
        "num_layers": 3,
        "head_dim": draw.choice((8, 10, 16)),
        "intermediate_size": draw.randrange(20, 60),
        "moe_intermediate_size": draw.randrange(10, 30),
        "num_experts": experts,
        "top_k": draw.randrange(2, experts - 1),
        "rope_theta": draw.choice((1e4, 1e6)),
        "balance_coefficient": 0.0,
    }
    return Qwen3MoeConfig(**(sizes | FEATURES[case]))


def documents(vocab: int, seed: int) -> list[Document]:
    generator = torch.Generator().manual_seed(seed)
    made = [Document.of(torch.randint(vocab, (length,), generator=generator)) for length in LENGTHS]
    return [
        Document(token_ids=d.token_ids, labels=d.labels, weights=d.weights * torch.rand(len(d), generator=generator))
        for d in made
    ]


def their_tensor(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """The tensor of a checkpoint's key in a model of `transformers`, which stacks experts in memory."""
    if key in tensors:
        return tensors[key]
    prefix, _, rest = key.partition(".experts.")
    expert, name, _ = rest.split(".")
    if name == "down_proj":
        return tensors[f"{prefix}.experts.down_proj"][int(expert)]
    gate, up = tensors[f"{prefix}.experts.gate_up_proj"][int(expert)].chunk(2)
    return gate if name == "gate_proj" else up


def compared(make_model: Callable, case: int, dtype: torch.dtype) -> Comparison:
    """Ours and `transformers`' with the same weights, over the same documents."""
    model = make_model(random_config(case), dtype, seed=case, spread=0.2)
    reference = partial(transformers_model, "Qwen3MoeForCausalLM", model.config.to_hf(), dtype)
    samples = documents(model.config.vocab_size, case)
    return compare(model, reference, samples, find=their_tensor, exact=dtype == torch.float64)


@pytest.mark.parametrize("case", range(len(FEATURES)))
def test_float64_logits_and_gradients_equal_those_of_transformers(make_model, case):
    found = compared(make_model, case, torch.float64)
    assert 1e-6 < found.margin < 1
    assert found.logits < 1e-9
    assert found.worst(1e-8) == {}


@pytest.mark.parametrize("case", range(len(FEATURES)))
def test_float32_logits_and_gradients_are_those_of_transformers_as_it_ships(make_model, case):
    found = compared(make_model, case, torch.float32)
    assert 1e-5 < found.margin < 1
    assert found.logits < 1e-5
    assert found.worst(1e-5) == {}


def test_the_reference_computes_in_float32_where_nothing_widens_it(make_model):
    model = make_model(random_config(0))
    theirs = transformers_model("Qwen3MoeForCausalLM", model.config.to_hf(), torch.float64)
    with Only64(), pytest.raises(AssertionError, match=r"torch\.float32"):
        reference_logits(theirs, documents(model.config.vocab_size, 0))
