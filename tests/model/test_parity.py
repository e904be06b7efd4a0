"""The model computes what `transformers.Qwen3MoeForCausalLM` computes: logits and the gradient of every tensor.

T tokens, V vocabulary, E experts, K chosen experts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig

from xtuner_core.contracts.batch import Document, PackedBatch, pack
from xtuner_core.nn import Router

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


class Widen(TorchFunctionMode):
    """Turns every request for float32 into one for float64."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping | None = None):
        if func is Tensor.float:
            func = Tensor.double
        wide = lambda item: torch.float64 if item is torch.float32 else item  # noqa: E731
        return func(*tree_map(wide, args), **tree_map(wide, dict(kwargs or {})))


class Only64(TorchDispatchMode):
    """Fails where any operation, of the backward pass too, makes a floating-point tensor that is not float64."""

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping | None = None):
        result = func(*args, **(kwargs or {}))
        for item in tree_leaves(result):
            if isinstance(item, Tensor) and item.is_floating_point():
                assert item.dtype == torch.float64, (func, item.dtype)
        return result


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


def make_reference(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """`transformers`' model with the same weights."""
    from transformers import Qwen3MoeConfig as TheirConfig
    from transformers import Qwen3MoeForCausalLM

    theirs = Qwen3MoeForCausalLM._from_config(
        TheirConfig(**model.config.to_hf()), attn_implementation="eager", experts_implementation="eager"
    ).to(dtype)
    state, ours = dict(theirs.named_parameters()), dict(model.named_parameters())
    with torch.no_grad():
        for entry in model.weight_map().entries:
            their_tensor(state, entry.hf_name).copy_(entry.region(ours[entry.parameter]))
    return theirs


def their_logits(theirs: torch.nn.Module, samples: list[Document]) -> Tensor:
    """Each document alone, one after the other, [T, V]."""
    return torch.cat([theirs(input_ids=d.token_ids[None], use_cache=False).logits[0] for d in samples])


def weighted_loss(log_probs_T: Tensor, batch: PackedBatch) -> Tensor:
    return -(log_probs_T * batch.weights.to(log_probs_T.dtype)).sum()


def distance(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs|; what is all zeros must be so on both sides."""
    norm = theirs.norm().item()
    if norm == 0:
        assert ours.norm().item() == 0
        return 0.0
    return (ours - theirs).norm().item() / norm


def smallest_margin(model: torch.nn.Module, batch: PackedBatch) -> float:
    """Least gap, over tokens and layers, between the probability of the last chosen expert and of the next."""
    gaps: list[Tensor] = []

    def keep(router: Router, args: Any, routing: Any) -> None:
        ranked_TE = routing.probs_TE.sort(-1, descending=True).values
        gaps.append((ranked_TE[:, router.top_k - 1] - ranked_TE[:, router.top_k]).min())

    hooks = [m.register_forward_hook(keep) for m in model.modules() if isinstance(m, Router)]
    with torch.no_grad():
        model(batch)
    for hook in hooks:
        hook.remove()
    assert gaps
    return torch.stack(gaps).min().item()


def compare(make_model: Callable, case: int, dtype: torch.dtype, exact: bool) -> tuple[float, dict[str, float], float]:
    """Distance of the logits, of the gradient of every tensor of the checkpoint, and the smallest margin."""
    model = make_model(random_config(case), dtype, seed=case, spread=0.2)
    samples = documents(model.config.vocab_size, case)
    batch = pack(samples, capacity=sum(LENGTHS) + 5)
    hidden_TD = model(batch).predictions[0].hidden_TD
    weighted_loss(model.head(hidden_TD, batch.labels)[0], batch).backward()
    logits_TV = model.head(hidden_TD)[: batch.tokens]
    labels_T1, weights_T = batch.labels[: batch.tokens, None].clamp(min=0), batch.weights[: batch.tokens].to(dtype)
    with ExitStack() as stack:
        if exact:
            stack.enter_context(Widen())
        theirs = make_reference(model, dtype)
        if exact:
            stack.enter_context(Only64())
        reference_TV = their_logits(theirs, samples)
        chosen_T = reference_TV.log_softmax(-1).gather(1, labels_T1)[:, 0]
        (chosen_T * -weights_T).sum().backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    grads = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    distances = {
        entry.hf_name: distance(entry.region(ours[entry.parameter]), their_tensor(grads, entry.hf_name))
        for entry in model.weight_map().entries
    }
    return distance(logits_TV, reference_TV), distances, smallest_margin(model, batch)


@pytest.mark.parametrize("case", range(len(FEATURES)))
def test_float64_logits_and_gradients_equal_those_of_transformers(make_model, case):
    logits, gradients, margin = compare(make_model, case, torch.float64, exact=True)
    assert margin > 1e-6
    assert logits < 1e-9
    assert {name: value for name, value in gradients.items() if value >= 1e-8} == {}


@pytest.mark.parametrize("case", range(len(FEATURES)))
def test_float32_logits_and_gradients_are_those_of_transformers_as_it_ships(make_model, case):
    logits, gradients, margin = compare(make_model, case, torch.float32, exact=False)
    assert margin > 1e-5
    assert logits < 1e-5
    assert {name: value for name, value in gradients.items() if value >= 1e-5} == {}


def test_the_reference_computes_in_float32_where_nothing_widens_it(make_model):
    model = make_model(random_config(0))
    theirs = make_reference(model, torch.float64)
    with Only64(), pytest.raises(AssertionError, match=r"torch\.float32"):
        their_logits(theirs, documents(model.config.vocab_size, 0))
