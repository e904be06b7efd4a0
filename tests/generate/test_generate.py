"""Generation with a cache says what generation without one says, whoever shares the batch."""

from __future__ import annotations

import pytest
import torch

from xtuner_core.contracts.sampling import Sampling
from xtuner_core.engine.generate import generate
from xtuner_core.errors import UsageError

PROMPTS = ([3], [1, 4, 1, 5, 9, 2, 6], [7, 7, 7])
KINDS = [
    {},
    {"kv_heads": 4},
    {"kv_heads": 1},
    {"window": 3},
    {"sinks": True},
    {"window": 4, "sinks": True},
]
DRAWN = Sampling(max_tokens=12, temperature=0.8, top_k=15, top_p=0.9, seed=11)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_those_of_recomputing_the_whole_prefix(make_model, reference_log_probs, kind):
    model, sampling = make_model(**kind), Sampling(max_tokens=10, temperature=0)
    for prompt, sample in zip(PROMPTS, generate(model, PROMPTS, sampling, device="cpu"), strict=True):
        for n, token in enumerate(sample.token_ids):
            assert reference_log_probs(model, [*prompt, *sample.token_ids[:n]], sampling)[token] == 0
        assert sample.log_probs == (0.0,) * 10
        assert sample.stop == "length"


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_the_distribution_drawn_from(make_model, reference_log_probs, kind):
    model = make_model(**kind)
    for prompt, sample in zip(PROMPTS, generate(model, PROMPTS, DRAWN, device="cpu"), strict=True):
        for n, (token, log_prob) in enumerate(zip(sample.token_ids, sample.log_probs, strict=True)):
            expected = reference_log_probs(model, [*prompt, *sample.token_ids[:n]], DRAWN)[token]
            assert abs(log_prob - expected) < 1e-10


def test_draws_do_not_depend_on_who_shares_the_batch(make_model):
    model = make_model()
    together = generate(model, PROMPTS, DRAWN, device="cpu")
    others = generate(model, (PROMPTS[0], [9] * 40, PROMPTS[2], [8, 2]), DRAWN, device="cpu")
    assert together[0].token_ids == others[0].token_ids
    assert together[2].token_ids == others[2].token_ids
    assert generate(model, PROMPTS[:1], DRAWN, device="cpu")[0].token_ids == together[0].token_ids


def test_draws_depend_on_seed_prompts_index_and_position(make_model):
    model = make_model()
    first, second = generate(model, ([3], [3]), DRAWN, device="cpu")
    assert first.token_ids != second.token_ids
    other = Sampling(max_tokens=12, temperature=0.8, top_k=15, top_p=0.9, seed=12)
    assert generate(model, [[3]], other, device="cpu")[0].token_ids != first.token_ids


def test_a_stop_token_ends_its_sequence_alone_and_is_part_of_the_sample(make_model):
    model, sampling = make_model(), Sampling(max_tokens=10)
    free = generate(model, PROMPTS, sampling, device="cpu")
    stop = free[1].token_ids[3]
    stopping = Sampling(max_tokens=10, stop_token_ids=(stop,))
    model.packs.clear()
    stopped = generate(model, PROMPTS, stopping, device="cpu")
    for before, after in zip(free, stopped, strict=True):
        length = before.token_ids.index(stop) + 1 if stop in before.token_ids else 10
        assert after.token_ids == before.token_ids[:length]
        assert after.stop == ("stop" if stop in before.token_ids else "length")
        assert len(after.log_probs) == length
    lengths = [len(sample.token_ids) for sample in stopped]
    assert min(lengths) < max(lengths)
    prefill, *decodes = model.packs
    assert prefill == tuple(len(prompt) for prompt in PROMPTS)
    assert decodes == [(1,) * sum(length > n for length in lengths) for n in range(1, max(lengths))]


def test_training_flags_come_back_even_after_an_error(make_model):
    model = make_model().train()
    model.dropout.eval()
    generate(model, PROMPTS, Sampling(max_tokens=2), device="cpu")
    assert (model.training, model.dropout.training, model.head.training) == (True, False, True)
    with pytest.raises(IndexError):
        generate(model, [[10**6]], Sampling(max_tokens=2), device="cpu")
    assert (model.training, model.dropout.training) == (True, False)


def test_generation_is_the_same_in_a_training_model_and_leaves_no_gradient(make_model):
    model = make_model()
    expected = generate(model, PROMPTS, DRAWN, device="cpu")
    assert generate(model.train(), PROMPTS, DRAWN, device="cpu") == expected
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_no_prompts_give_no_samples_and_an_empty_prompt_is_refused(make_model):
    assert generate(make_model(), [], DRAWN, device="cpu") == []
    with pytest.raises(UsageError, match="prompt 1 holds no tokens"):
        generate(make_model(), [[1], []], DRAWN, device="cpu")
