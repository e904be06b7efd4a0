"""An export is there whole or not at all."""

from __future__ import annotations

import json

import pytest
import torch

from xtuner_core.errors import UsageError
from xtuner_core.hf import write
from xtuner_core.hf.tokenizer import TOKENIZER_FILES


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_parents_are_created_and_an_empty_folder_is_filled(make_toy, tmp_path):
    (tmp_path / "empty").mkdir()
    write.export(make_toy(), tmp_path / "empty")
    write.export(make_toy(), tmp_path / "a" / "b" / "c")
    expected = ["config.json", "generation_config.json", "model.safetensors"]
    assert names(tmp_path / "empty") == names(tmp_path / "a" / "b" / "c") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty"]


def test_the_folder_has_ordinary_permissions(make_toy, tmp_path):
    (tmp_path / "ordinary").mkdir()
    folder = write.export(make_toy(), tmp_path / "out")
    assert folder.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_an_occupied_target_is_refused_and_left_alone(make_toy, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for target in ("full", "file"):
        with pytest.raises(UsageError, match="exists and is not an empty folder"):
            write.export(make_toy(), tmp_path / target)
    assert names(tmp_path) == ["file", "full", "notes.txt"]


# Tests may run as root, whom permissions do not stop: these two places are closed to root as well.
@pytest.mark.parametrize("place", ["file", "sysfs"])
def test_a_folder_that_cannot_be_written_is_refused_and_nothing_is_left(make_toy, tmp_path, place):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "out" if place == "file" else "/sys/xtuner_core_out"
    for action in (lambda: write.check_target(target), lambda: write.export(make_toy(), target)):
        with pytest.raises(UsageError, match="cannot be written") as caught:
            action()
        assert caught.value.fix
        assert caught.value.exit_code == 2
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), MemoryError()])
def test_a_write_that_breaks_off_leaves_nothing(make_toy, tmp_path, monkeypatch, error):
    def stop(file, content):
        assert file.parent.is_dir()
        assert (file.parent / "model.safetensors").exists()
        raise error

    monkeypatch.setattr(write, "write_json", stop)
    expected = UsageError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write.export(make_toy(), tmp_path / "new" / "out")
    assert names(tmp_path) == []


def test_a_target_that_appears_meanwhile_is_not_overwritten(tmp_path):
    target = tmp_path / "out"

    def write_while_another_does():
        with write.replacing(target) as partial:
            (partial / "ours").write_text("")
            target.mkdir()
            (target / "theirs").write_text("")

    with pytest.raises(UsageError, match="cannot be written"):
        write_while_another_does()
    assert names(tmp_path) == ["out", "theirs"]


def test_checking_a_target_leaves_no_trace(tmp_path):
    write.check_target(tmp_path / "a" / "b")
    assert names(tmp_path) == []


def test_the_tokenizers_files_come_along(make_toy, tmp_path):
    source = tmp_path / "tokenizer"
    source.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "notes.txt"):
        (source / name).write_text(name)

    class Tokenizer:
        stop_tokens = (9,)
        folder = source

    folder = write.export(make_toy(), tmp_path / "out", tokenizer=Tokenizer())
    copied = [name for name in TOKENIZER_FILES if (folder / name).exists()]
    assert copied == ["tokenizer.json", "tokenizer_config.json"]
    assert not (folder / "notes.txt").exists()
    assert '"eos_token_id": 9' in (folder / "generation_config.json").read_text()


def test_all_that_ends_a_turn_and_further_chat_templates_are_exported(make_toy, tmp_path):
    source = tmp_path / "tokenizer"
    (source / "additional_chat_templates").mkdir(parents=True)
    (source / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")

    class Tokenizer:
        stop_tokens = (9, 5)
        folder = source

    folder = write.export(make_toy(), tmp_path / "out", tokenizer=Tokenizer())
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [9, 5]
    assert (folder / "additional_chat_templates" / "tool_use.jinja").read_text() == "{{ tools }}"


def test_exporting_changes_no_parameter(make_toy, tmp_path):
    model = make_toy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    write.export(model, tmp_path / "out", dtype=torch.bfloat16)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
