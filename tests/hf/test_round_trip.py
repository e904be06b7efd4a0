"""What is written is what is read, through the library and through transformers' conventions."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from xtuner_core.hf.read import read_weights
from xtuner_core.hf.write import export


def contents(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


@pytest.mark.parametrize("shard_bytes", [1, 400, 10**9])
def test_a_model_comes_back_bit_by_bit_from_any_number_of_files(make_toy, tmp_path, shard_bytes):
    model, other = make_toy(seed=1), make_toy(seed=2)
    folder = export(model, tmp_path / "out", shard_bytes=shard_bytes)
    report = read_weights(other, other.weight_map(), folder)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert report.tensors == len(model.weight_map().entries)
    assert report.bytes == sum(t.nbytes for t in contents(folder).values())
    assert report.casts == {}


def test_the_library_reads_every_tensor_in_the_checkpoints_orientation(make_toy, single):
    model, stored = make_toy(), contents(single)
    state = model.state_dict()
    assert stored.keys() == {entry.hf_name for entry in model.weight_map().entries}
    assert torch.equal(stored["model.experts.2.down"], state["down"][2].T)
    assert torch.equal(stored["model.experts.1.up"], state["gate_up"][1, 4:])
    assert torch.equal(stored["model.odd.weight"], state["pairs"][1::2])
    assert "lm_head.weight" not in stored
    with safe_open(single / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_are_named_indexed_and_bounded(sharded):
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    files = sorted(sharded.glob("*.safetensors"))
    assert [file.name for file in files] == [
        f"model-{n + 1:05d}-of-{len(files):05d}.safetensors" for n in range(len(files))
    ]
    assert len(files) > 2
    for file in files:
        stored = load_file(file)
        assert sum(t.nbytes for t in stored.values()) <= 400
        assert all(index["weight_map"][key] == file.name for key in stored)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in contents(sharded).values())


def test_files_written_by_the_library_are_read(make_toy, tmp_path):
    model, other = make_toy(seed=1), make_toy(seed=2)
    state = dict(model.state_dict())
    tensors = {e.hf_name: e.region(state[e.parameter]).contiguous() for e in model.weight_map().entries}
    save_file(tensors, tmp_path / "model.safetensors")
    read_weights(other, other.weight_map(), tmp_path)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())


def test_a_cast_on_the_way_in_is_exact_and_reported(make_toy, tmp_path):
    model, wide = make_toy(dtype=torch.bfloat16, seed=1), make_toy(dtype=torch.float64, seed=2)
    folder = export(model, tmp_path / "out")
    report = read_weights(wide, wide.weight_map(), folder)
    entries = len(model.weight_map().entries)
    assert report.casts == {"bfloat16 to float64": entries - 1}, "the buffer is float32 on both sides"
    assert torch.equal(wide.down, model.down.double())


def test_dtype_casts_parameters_and_leaves_buffers(make_toy, tmp_path):
    model = make_toy()
    stored = contents(export(model, tmp_path / "out", dtype=torch.bfloat16))
    assert stored["model.router.bias"].dtype == torch.float32
    assert stored["model.experts.0.down"].dtype == torch.bfloat16
    assert torch.equal(stored["model.experts.0.down"], model.down[0].T.bfloat16())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"


def test_mixed_dtypes_lie_aligned_in_the_file(make_toy, tmp_path):
    from xtuner_core.hf.header import read_header

    folder = export(make_toy(), tmp_path / "out", dtype=torch.float16)
    tensors = read_header(folder / "model.safetensors").tensors
    assert {t.dtype for t in tensors.values()} == {torch.float16, torch.float32}
    assert all(t.start % t.dtype.itemsize == 0 for t in tensors.values())


def test_an_optional_key_is_read_over_and_reported(make_toy, single):
    stored = contents(single) | {"lm_head.weight": torch.zeros(11, 6)}
    save_file(stored, single / "model.safetensors")
    other = make_toy(seed=3)
    report = read_weights(other, other.weight_map(), single)
    assert report.ignored == ("lm_head.weight",)
    assert torch.equal(other.head.weight, stored["model.embed.weight"])


def test_the_end_of_text_stands_in_generation_config(single):
    assert json.loads((single / "generation_config.json").read_text()) == {"eos_token_id": 5}
    assert json.loads((single / "config.json").read_text())["model_type"] == "toy"
