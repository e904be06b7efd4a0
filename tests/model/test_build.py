"""Building on the meta device, the weight map, counts by formula against what is built and counted."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig
from xtuner_core_qwen3_moe.model import build
from xtuner_core_qwen3_moe.presets import A3B_30B, A22B_235B, TINY

from xtuner_core.contracts.batch import Document, pack

SMALL = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 28,
    "moe_intermediate_size": 16,
    "num_experts": 6,
    "mlp_only_layers": [1],
}
VARIANTS = ({}, {"tie_word_embeddings": True}, {"attention_bias": True}, {"decoder_sparse_step": 2})


def batch(lengths: tuple[int, ...] = (9, 5), filler: int = 0):
    documents = [Document.of(torch.arange(length) % SMALL["vocab_size"]) for length in lengths]
    return pack(documents, capacity=sum(lengths) + filler)


def built_on_meta(config: Qwen3MoeConfig):
    with torch.device("meta"):
        return build(config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_weight_map_covers_every_parameter_exactly_once(make_model, variant):
    model = make_model(Qwen3MoeConfig(**SMALL, **variant))
    covered = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    entries = model.weight_map().entries
    for entry in entries:
        entry.region(covered[entry.parameter]).add_(1)
    assert all((count == 1).all() for count in covered.values())
    assert len({entry.hf_name for entry in entries}) == len(entries)
    assert not list(model.buffers())


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_built_on_meta_holds_what_its_configuration_says(variant):
    config = Qwen3MoeConfig(**SMALL, **variant)
    model = built_on_meta(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == config.parameter_count().total


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_weight_map_names_the_keys_that_transformers_saves(variant, tmp_path):
    from safetensors import safe_open
    from transformers import Qwen3MoeConfig as TheirConfig
    from transformers import Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(**SMALL, **variant)
    Qwen3MoeForCausalLM(TheirConfig(**config.to_hf())).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as saved:
        theirs = {key: tuple(saved.get_slice(key).get_shape()) for key in saved.keys()}  # noqa: SIM118
    model = built_on_meta(config)
    parameters = dict(model.named_parameters())
    ours = {e.hf_name: tuple(e.region(parameters[e.parameter]).shape) for e in model.weight_map().entries}
    assert ours == theirs
    assert model.weight_map().optional == ({"lm_head.weight"} if config.tie_word_embeddings else set())


def test_a_tied_head_stays_tied_when_the_model_leaves_meta(make_model):
    model = make_model(Qwen3MoeConfig(**SMALL, tie_word_embeddings=True))
    assert model.head.weight is model.embed.weight
    assert model.float().head.weight is model.embed.weight
    twin = copy.deepcopy(model)
    assert twin.head.weight is twin.embed.weight
    assert twin.embed.weight is not model.embed.weight


@pytest.mark.parametrize("preset", [TINY, A3B_30B, A22B_235B], ids=["tiny", "30b-a3b", "235b-a22b"])
def test_the_presets_have_as_many_parameters_as_transformers_builds(preset):
    from transformers import Qwen3MoeConfig as TheirConfig
    from transformers import Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(**preset)
    with torch.device("meta"):
        theirs = Qwen3MoeForCausalLM(TheirConfig(**config.to_hf()))
    expected = sum(parameter.numel() for parameter in theirs.parameters())
    assert sum(parameter.numel() for parameter in built_on_meta(config).parameters()) == expected
    assert config.parameter_count().total == expected


def test_active_parameters_are_those_of_the_chosen_experts_and_the_head(make_model):
    config = Qwen3MoeConfig(**SMALL)
    model = make_model(config)
    embed, experts = model.embed.weight.numel(), [p for n, p in model.named_parameters() if ".experts." in n]
    idle = sum(p.numel() for p in experts) * (config.num_experts - config.top_k) // config.num_experts
    assert config.parameter_count().active == config.parameter_count().total - embed - idle


@pytest.mark.parametrize("variant", VARIANTS)
def test_flops_are_three_times_a_counted_forward_less_half_of_attention(make_model, variant):
    config = Qwen3MoeConfig(**SMALL, **variant)
    model, lengths = make_model(config, kinds=("reference",)), (9, 5, 1)
    pack_of_three = batch(lengths)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.head(model(pack_of_three).predictions[0].hidden_TD, pack_of_three.labels)
    squares = sum(length**2 for length in lengths)
    unseen_half = 6 * config.num_layers * config.num_heads * config.head_dim * squares
    assert config.flops(lengths) == 3 * counter.get_total_flops() - unseen_half


def test_the_reference_and_the_fast_operators_agree(make_model):
    fast, plain = (
        make_model(Qwen3MoeConfig(**SMALL), spread=0.2, kinds=kinds) for kinds in (("reference", "cpu"), ("reference",))
    )
    outputs = [model(batch(filler=3)).predictions[0].hidden_TD for model in (fast, plain)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)


def test_a_copy_stays_bound_and_computes_the_same(make_model):
    model = make_model(Qwen3MoeConfig(**SMALL), torch.float32)
    outputs = [item(batch()).predictions[0].hidden_TD for item in (model, copy.deepcopy(model))]
    assert torch.equal(*outputs)


def test_a_model_that_was_never_bound_says_so():
    model = build(Qwen3MoeConfig(**SMALL))
    with pytest.raises(AssertionError, match="rms_norm"):
        model(batch())


def test_the_output_names_its_losses_with_scope_and_coefficient(make_model):
    config = Qwen3MoeConfig(**SMALL, balance_scope="micro_batch", z_coefficient=0.5)
    output = make_model(config)(batch(filler=4))
    losses = {item.name: (item.coefficient, item.scope) for item in output.auxiliary}
    assert losses == {"balance": (0.001, "micro_batch"), "z": (0.5, "document")}
    assert [item.name for item in output.predictions] == ["main"]


def test_the_expert_load_counts_every_choice_of_every_real_token(make_model):
    config = Qwen3MoeConfig(**SMALL)
    load_LE = make_model(config)(batch((9, 5), filler=20)).statistics["expert_load"]
    assert load_LE.dtype == torch.float32
    assert not load_LE.requires_grad
    assert load_LE.shape == (2, config.num_experts)
    assert load_LE.sum(1).tolist() == [14 * config.top_k] * 2


def test_a_model_without_mixtures_has_neither_losses_nor_load(make_model):
    output = make_model(Qwen3MoeConfig(**SMALL | {"mlp_only_layers": [0, 1, 2]}))(batch())
    assert output.auxiliary == ()
    assert output.statistics == {}


def test_the_head_gives_log_probabilities_entropies_or_logits(make_model):
    model = make_model(Qwen3MoeConfig(**SMALL), spread=0.2)
    item = batch()
    hidden_TD = model(item).predictions[0].hidden_TD
    expected_TV = model.head(hidden_TD).log_softmax(-1)
    log_probs_T, entropy_T = model.head(hidden_TD, item.labels, entropy=True)
    for token, label in enumerate(item.labels.tolist()):
        wanted = expected_TV[token, label].item() if label >= 0 else 0.0
        assert log_probs_T[token].item() == pytest.approx(wanted, abs=1e-12)
    kept_T = item.labels >= 0
    wanted_T = -(expected_TV.exp() * expected_TV).sum(-1)
    torch.testing.assert_close(entropy_T[kept_T], wanted_T[kept_T], rtol=1e-11, atol=0)
