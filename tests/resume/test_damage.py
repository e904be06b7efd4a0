"""A damaged checkpoint is skipped with its reason, set aside, and the next older good one taken."""

from __future__ import annotations

import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from xtuner_core.api import PluginInfo, Provider, hookimpl
from xtuner_core.builtin.adamw.config import AdamWConfig
from xtuner_core.builtin.adamw.optimizer import AdamW
from xtuner_core.engine.checkpoint.manifest import read_score, write_manifest
from xtuner_core.engine.checkpoint.saved import problems
from xtuner_core.engine.resume import newest_good
from xtuner_core.errors import RunError


def cut(checkpoint):
    file = checkpoint / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    return "model/model.safetensors has"


def remove(checkpoint):
    (checkpoint / "state.json").unlink()
    return "state.json is missing"


def forget_manifest(checkpoint):
    (checkpoint / "manifest.json").unlink()
    return "manifest.json cannot be read"


def change_manifest(checkpoint):
    file = checkpoint / "manifest.json"
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 2'))
    return "manifest.json is damaged"


def flip(checkpoint):
    file = checkpoint / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    return "optimizer.safetensors has another checksum than when it was written"


def put_nan_into(file, checkpoint):
    tensors = load_file(checkpoint / file)
    name = max(tensors)
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, checkpoint / file, metadata={"format": "pt"})
    # With checksums that are right: the number itself is what is wrong.
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint, step=5, score=read_score(checkpoint))
    return f"{name} in {file} holds NaN or an infinity"


def nan_in_weights(checkpoint):
    return put_nan_into("model/model.safetensors", checkpoint)


def nan_in_optimizer(checkpoint):
    return put_nan_into("optimizer.safetensors", checkpoint)


HARMS = [cut, remove, forget_manifest, change_manifest, flip, nan_in_weights, nan_in_optimizer]


@pytest.mark.parametrize("harm", HARMS)
def test_damage_of_every_kind_is_noticed_named_and_set_aside(tiny, half, harm):
    reason = harm(half / "checkpoints" / "step-00000005")
    found, (skipped,) = newest_good(half)
    assert found == half / "checkpoints" / "step-00000004"
    assert skipped.values["step"] == 5
    assert reason in skipped.values["reason"]
    assert skipped.values["kept_as"] == "damaged-step-00000005"
    assert tiny.checkpoints(half) == ["damaged-step-00000005", "step-00000004"]


def test_a_run_says_what_it_skips_and_why_and_comes_to_the_same_end(tiny, whole, half, capsys):
    reason = flip(half / "checkpoints" / "step-00000005")
    seen = tiny.StopAfter()
    tiny.train(half, resume=True, observers=(seen,))
    assert seen.start.steps_done == 4
    (skipped,) = [line for line in tiny.log(half) if line["event"] == "checkpoint skipped"]
    assert reason in skipped["reason"]
    assert reason in capsys.readouterr().err
    assert tiny.weights(half) == tiny.weights(whole)
    assert tiny.numbers(half) == tiny.numbers(whole)


@pytest.mark.full
def test_where_all_are_damaged_the_run_says_so_and_starts_anew(tiny, whole, half):
    for checkpoint in (half / "checkpoints").iterdir():
        flip(checkpoint)
    seen = tiny.StopAfter()
    tiny.train(half, resume=True, observers=(seen,))
    assert seen.start.steps_done == 0
    assert [line["step"] for line in tiny.log(half) if line["event"] == "checkpoint skipped"] == [5, 4]
    assert tiny.weights(half) == tiny.weights(whole)


@pytest.mark.full
def test_no_bit_of_a_checkpoint_can_change_unnoticed(half):
    drawn = random.Random(0)
    checkpoint = half / "checkpoints" / "step-00000005"
    files = [file for file in checkpoint.rglob("*") if file.is_file()]
    assert problems(checkpoint) == []
    for file in files:
        content = file.read_bytes()
        for _ in range(20):
            changed = bytearray(content)
            changed[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
            file.write_bytes(changed)
            if file.name == "manifest.json" and same_json(content, changed):
                continue  # white space
            assert problems(checkpoint) != [], file
        file.write_bytes(content)
    assert problems(checkpoint) == []


def same_json(one, other):
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


class Spoiler(AdamW):
    """An optimizer that leaves NaN in one weight at its third step."""

    def step(self, grads, *, learning_rate, grad_scale):
        super().step(grads, learning_rate=learning_rate, grad_scale=grad_scale)
        if self.state_dict()["step"] == 3:
            self.spoilt.data.view(-1)[0] = torch.nan


def make_spoiler(config, parameters, *, state_dtype):
    made = Spoiler(AdamWConfig(), parameters, state_dtype=state_dtype)
    (made.spoilt,) = (each.tensor for each in parameters if each.name == "embed.weight")
    return made


class Spoilers:
    @hookimpl
    def xtuner_plugin(self):
        return PluginInfo(contract="1.0", summary="spoils")

    @hookimpl
    def xtuner_providers(self):
        return [Provider(slot="optimizer", name="spoiler", factory=f"{__name__}:make_spoiler", summary="spoils")]


def test_weights_that_are_not_finite_are_not_saved_and_the_tensor_is_named(tiny, tmp_path):
    recipe = {"optimizer": "spoiler", "checkpoint.every_steps": 1}
    with pytest.raises(RunError) as caught:
        tiny.train(tmp_path / "run", recipe, objects={"spoilers": Spoilers()})
    assert caught.value.message == "step 3: embed.weight holds NaN or an infinity, and is not saved"
    assert tiny.checkpoints(tmp_path / "run") == ["step-00000001", "step-00000002"]
