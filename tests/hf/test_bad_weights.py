"""Every way in which a checkpoint can fail to fit: file, key and shapes are named, nothing is written."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from xtuner_core.errors import WeightError
from xtuner_core.hf.read import read_weights

INDEX = "model.safetensors.index.json"


@pytest.fixture
def refused(make_toy):
    """Read a folder, expect a refusal, and check that nothing was written."""

    def read(folder) -> str:
        model = make_toy(seed=7)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(WeightError) as caught:
            read_weights(model, model.weight_map(), folder)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
        assert caught.value.fix
        assert caught.value.exit_code == 4
        return caught.value.message

    return read


def rewrite(folder, change):
    file = folder / "model.safetensors"
    tensors = {key: value.clone() for key, value in load_file(file).items()}
    change(tensors)
    save_file(tensors, file)


def cut(file, count):
    file.write_bytes(file.read_bytes()[:-count])


def edit_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def test_a_missing_tensor(single, refused):
    rewrite(single, lambda tensors: tensors.pop("model.experts.1.up"))
    message = refused(single)
    assert "model.safetensors: model.experts.1.up: missing, expected [4, 6]" in message


def test_an_extra_tensor(single, refused):
    rewrite(single, lambda tensors: tensors.update({"model.surprise": torch.zeros(2, 3)}))
    assert "model.safetensors: model.surprise: extra, expected no such key, found [2, 3]" in refused(single)


def test_a_misshapen_tensor(single, refused):
    rewrite(single, lambda tensors: tensors.update({"model.experts.0.down": torch.zeros(4, 6)}))
    message = refused(single)
    assert "model.safetensors: model.experts.0.down: misshapen, expected [6, 4], found [4, 6]" in message


def test_a_tensor_of_whole_numbers(single, refused):
    rewrite(single, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(6, dtype=torch.int64)}))
    assert "model.norm.weight: expected float32, found int64" in refused(single)


def test_a_truncated_tensor(single, refused):
    cut(single / "model.safetensors", 5)
    message = refused(single)
    assert "model.experts.2.down: truncated: its data ends at byte" in message
    assert "model.safetensors" in message


def test_a_truncated_shard(sharded, refused):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    cut(shard, 1)
    message = refused(sharded)
    assert shard.name in message
    assert "truncated" in message
    assert "missing" not in message


@pytest.mark.parametrize("size", [0, 4, 30])
def test_a_file_cut_within_its_header(single, refused, size):
    file = single / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    message = refused(single)
    assert "model.safetensors: damaged or truncated" in message
    assert "missing" not in message


def test_a_damaged_header(single, refused):
    file = single / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[9:13] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    assert "damaged or truncated" in refused(single)


def test_bytes_after_the_last_tensor(single, refused):
    file = single / "model.safetensors"
    file.write_bytes(file.read_bytes() + b"12345")
    assert "damaged: 5 bytes follow the last tensor" in refused(single)


def test_tensors_that_overlap(tmp_path, refused):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps({"a": entry, "b": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    assert "damaged: begins at byte 0, not at 4" in refused(tmp_path)


def test_a_header_that_names_a_key_twice(tmp_path, refused):
    entry = b'"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = b"{" + entry + b"," + entry + b"}"
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    assert "the header names a twice" in refused(tmp_path)


def test_a_shard_that_the_index_names_is_absent(sharded, refused):
    shard = sorted(sharded.glob("*.safetensors"))[0]
    shard.unlink()
    message = refused(sharded)
    assert f"{shard.name}: missing, though {INDEX} names it for model.embed.weight" in message


def test_an_index_that_names_a_key_its_shard_has_not(sharded, refused):
    first = sorted(sharded.glob("*.safetensors"))[0].name
    edit_index(sharded, lambda weight_map: weight_map.update({"model.odd.weight": first}))
    message = refused(sharded)
    assert f"{first}: model.odd.weight: named by {INDEX}, but the file has no such tensor" in message


def test_a_shard_with_a_key_that_the_index_does_not_name(sharded, refused):
    edit_index(sharded, lambda weight_map: weight_map.pop("model.odd.weight"))
    assert f"model.odd.weight: not named by {INDEX}" in refused(sharded)


def test_a_key_in_two_shards(sharded, refused):
    first, *_, last = sorted(sharded.glob("*.safetensors"))
    save_file(load_file(last) | {"model.embed.weight": torch.zeros(11, 6)}, last)
    assert f"{last.name}: model.embed.weight: stored a second time, first in {first.name}" in refused(sharded)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", ""])
def test_an_index_that_points_outside_its_folder(sharded, refused, name):
    edit_index(sharded, lambda weight_map: weight_map.update({"model.odd.weight": name}))
    assert "no file of its folder" in refused(sharded)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none(sharded, refused, text):
    (sharded / INDEX).write_text(text)
    assert INDEX in refused(sharded)


def test_pickled_weights_are_refused(tmp_path, refused):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "pickled weights only (pytorch_model.bin), and nothing is unpickled" in refused(tmp_path)


def test_a_folder_without_weights_or_none_at_all(tmp_path, refused):
    assert "holds neither model.safetensors nor" in refused(tmp_path)
    assert "there is no folder" in refused(tmp_path / "nowhere")


def test_two_sets_of_weights_in_a_folder(sharded, single, refused):
    (single / "model.safetensors").rename(sharded / "model.safetensors")
    assert "holds both" in refused(sharded)


def test_all_problems_come_in_one_error_and_are_counted(single, refused):
    def spoil(tensors):
        for e in range(3):
            tensors.pop(f"model.experts.{e}.up")
            tensors[f"model.experts.{e}.gate"] = torch.zeros(1)
            tensors[f"model.extra.{e}"] = torch.zeros(1)

    rewrite(single, spoil)
    message = refused(single)
    assert "9 problems" in message
    assert len(message.splitlines()) == 1 + 8 + 1
    assert message.endswith("- and 1 more")
