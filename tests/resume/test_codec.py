"""States as JSON and tensors: what comes back is what was given, and nothing else is taken."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from xtuner_core.engine.checkpoint.codec import decode, encode
from xtuner_core.engine.checkpoint.tensors import first_unfit, read_tensors, write_tensors
from xtuner_core.errors import ContractError


def through_a_file(state, tmp_path):
    plain, tensors = encode(state, "state")
    write_tensors(tmp_path / "tensors.safetensors", tensors)
    text = json.dumps(plain, allow_nan=False)
    return decode(json.loads(text), read_tensors(tmp_path / "tensors.safetensors"))


def test_plain_data_comes_back_with_its_types(tmp_path):
    state = {
        "none": None,
        "flags": [True, False],
        "big": 2**80,
        "float": 0.1 + 0.2,
        "limits": [math.inf, -math.inf],
        "text": "ä\n\x00",
        "pair": (1, ("a", 2.5)),
        "by number": {0: "a", 7: {"b": (1,)}},
        "marks": {"$tensor": "no tensor", "$float": 1},
        "empty": [{}, [], ()],
    }
    back = through_a_file(state, tmp_path)
    assert back == state
    assert repr(back) == repr(state)
    assert math.isnan(through_a_file({"nan": math.nan}, tmp_path)["nan"])


DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_come_back_bit_for_bit(tmp_path, dtype):
    random = torch.Generator().manual_seed(0)
    values = torch.randint(-3, 3, (5, 3), generator=random).to(dtype)
    state = {"a": {"whole": values, "turned": values.T, "scalar": values[0, 0], "none": values[:0]}, "b": [values]}
    back = through_a_file(state, tmp_path)
    for found, given in ((back["a"][name], state["a"][name]) for name in state["a"]):
        assert (found.dtype, found.shape) == (given.dtype, given.shape)
        assert torch.equal(found, given)
    assert torch.equal(back["b"][0], values)


def test_two_keys_that_read_alike_keep_their_tensors(tmp_path):
    state = {"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}}
    back = through_a_file(state, tmp_path)
    assert (back["a.b"].item(), back["a"]["b"].item()) == (1, 2)


@pytest.mark.parametrize(
    ("value", "kind"), [(object(), "object"), (np.int64(3), "int64"), ({1, 2}, "set"), (np.zeros(2), "ndarray")]
)
def test_anything_else_is_refused_with_its_place(value, kind):
    with pytest.raises(ContractError, match=rf"algorithm\.sources\.1 is a {kind}"):
        encode({"sources": [0, value]}, "algorithm")


def test_a_missing_tensor_is_an_error():
    with pytest.raises(ValueError, match=r"state\.a is missing"):
        decode({"a": {"$tensor": "state.a"}}, {})


def test_the_first_tensor_that_is_not_finite_is_named():
    fine, whole = torch.ones(3), torch.tensor([1, 2])
    broken = torch.tensor([1.0, torch.inf])
    assert first_unfit({"a": fine, "b": whole, "c": torch.zeros(0)}.items()) is None
    assert first_unfit({"a": fine, "b": broken, "c": broken * torch.nan}.items()) == "b"
