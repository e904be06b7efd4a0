"""What stays in memory between the passes, setting by setting. T tokens, D width."""

from __future__ import annotations

import pytest
import torch

from xtuner_core.testing.documents import PACKINGS, random_documents

SIZES = {"hidden_size": 64, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16}
SIZES |= {"moe_intermediate_size": 32, "intermediate_size": 128, "vocab_size": 97}


@pytest.fixture
def batch():
    return PACKINGS[1](random_documents(97, count=24, longest=16), 1)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dense", [True, False])
def test_each_setting_keeps_less_than_the_one_before(make_model, recomputed, settings, bytes_kept, batch, dtype, dense):
    values = SIZES | {"mlp_only_layers": [0, 1, 2, 3] if dense else []}
    plain = make_model("qwen3_moe", dtype, **values)
    models = [plain, *(recomputed(plain, settings[n]) for n in ("norms and activations", "whole layers"))]
    attention = recomputed(plain, settings["attention"])
    nothing, products, layers = (bytes_kept(lambda each=each: each(batch)) for each in models)
    assert nothing > products > layers
    assert nothing > bytes_kept(lambda: attention(batch)) > layers


def test_a_dense_layer_that_is_recomputed_keeps_its_input_alone(make_model, recomputed, settings, bytes_kept, batch):
    found = []
    for count in (2, 4):
        values = SIZES | {"mlp_only_layers": list(range(count)), "num_layers": count}
        model = recomputed(make_model("qwen3_moe", **values), settings["whole layers"])
        found.append(bytes_kept(lambda model=model: model(batch)))
    input_TD = batch.token_ids.shape[0] * SIZES["hidden_size"] * 8
    # Beside it two generator states, kept so that what draws at random draws the same again.
    assert 2 * input_TD <= found[1] - found[0] <= 2 * (input_TD + 2 * torch.get_rng_state().nbytes)


@pytest.mark.parametrize("name", ["norms and activations", "feed-forward", "whole layers"])
def test_nothing_is_kept_after_the_backward_pass(make_model, recomputed, settings, bytes_kept, batch, name):
    model = recomputed(make_model("qwen3_moe", **SIZES), settings[name])

    def step():
        model(batch).predictions[0].hidden_TD.sum().backward()
        model.zero_grad()

    assert bytes_kept(step) == 0
