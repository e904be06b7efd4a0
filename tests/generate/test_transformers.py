"""An exported Qwen3-MoE, loaded by transformers, has the same logits and continues prompts alike."""

from __future__ import annotations

import importlib

import pytest
import torch
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig
from xtuner_core_qwen3_moe.model import build

from xtuner_core.contracts.batch import Document, pack
from xtuner_core.contracts.operator import OperatorTable, OperatorUser
from xtuner_core.contracts.sampling import Sampling
from xtuner_core.engine.generate import generate
from xtuner_core.hf.coverage import check_coverage
from xtuner_core.hf.initialise import initialise
from xtuner_core.hf.materialise import materialise
from xtuner_core.hf.read import read_weights
from xtuner_core.hf.write import export

PROMPTS = ([5], [1, 4, 1, 5, 9, 2, 6], [33, 2, 3])


def make(tied: bool, seed: int = 0):
    config = Qwen3MoeConfig(
        vocab_size=60,
        hidden_size=32,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_only_layers=[1],
        tie_word_embeddings=tied,
        initializer_range=0.3,
    )
    with torch.device("meta"):
        model = build(config)
    check_coverage(model, model.weight_map())
    materialise(model, "cpu")
    initialise(model, model.weight_map(), seed)
    users = [module for module in model.modules() if isinstance(module, OperatorUser)]
    uses = {use for user in users for use in user.uses(device="cpu", dtype=torch.float32).values()}
    table = OperatorTable(
        {use: importlib.import_module(f"xtuner_core_kernels.{use.operator}.reference").IMPLEMENTATION for use in uses}
    )
    for user in users:
        user.bind(table, device="cpu", dtype=torch.float32)
    return model.eval()


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def pair(request, tmp_path):
    """Our model, and transformers' from its export in several shards."""
    from transformers import AutoModelForCausalLM

    ours = make(request.param)
    folder = export(ours, tmp_path / "out", shard_bytes=40_000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    theirs, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return ours, theirs.eval(), folder


def test_logits_and_greedy_continuations_are_those_of_transformers(pair):
    ours, theirs, _ = pair
    samples = generate(ours, PROMPTS, Sampling(max_tokens=16, temperature=0), device="cpu")
    for prompt, sample in zip(PROMPTS, samples, strict=True):
        continued = [*prompt, *sample.token_ids]
        with torch.no_grad():
            logits = theirs(torch.tensor([continued])).logits[0]
            expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, pad_token_id=0)
            mine = ours.head(ours(pack([Document.of(continued)])).predictions[0].hidden_TD)
        assert (mine - logits).abs().max().item() < 1e-4
        assert expected[0].tolist() == continued


def test_what_transformers_saves_is_read_back(pair, tmp_path):
    ours, theirs, _ = pair
    theirs.save_pretrained(tmp_path / "theirs")
    other = make(ours.config.tie_word_embeddings, seed=1)
    report = read_weights(other, other.weight_map(), tmp_path / "theirs")
    assert report.casts == {}
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in ours.state_dict().items())
