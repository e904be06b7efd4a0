"""The library `datasets` as a source, without a network: saved datasets, folders of files, streams."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from xtuner_core import compose
from xtuner_core.builtin.hub.config import HubConfig
from xtuner_core.builtin.hub.dataset import HubCorpus
from xtuner_core.errors import DataError
from xtuner_core.testing import DatasetContract

ROWS = [{"text": f"text {number}", "score": number} for number in range(12)]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
CHAT = [{"messages": [{"role": "user", "content": "hi", "name": "me"}, CALL]}]


@pytest.fixture(autouse=True)
def _offline_and_silent(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def hub(tmp_path):
    return lambda **settings: HubCorpus(HubConfig(**settings), cache=tmp_path / "cache")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Data files of two splits."""
    home = tmp_path / "files"
    home.mkdir()
    for split, rows in (("train", ROWS), ("test", [{"text": "scored", "score": 0}])):
        (home / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return home


class TestHub(DatasetContract):
    plugin, broken = "hub", 1
    configs = (
        {"path": "saved", "held_out_fraction": 0.3},
        {"path": "both", "held_out_split": "test"},
        {"path": "files", "held_out_split": "test", "streaming": True},
    )

    def prepare(self, folder: Path) -> None:
        rows = [*ROWS, {"text": None, "score": 0}]
        train = datasets.Dataset.from_list(rows)
        test = datasets.Dataset.from_list([{"text": "scored"}])
        train.save_to_disk(str(folder / "saved"))
        datasets.DatasetDict(train=train, test=test).save_to_disk(str(folder / "both"))
        (folder / "files").mkdir(exist_ok=True)
        for split, lines in (("train", rows), ("test", [{"text": "scored", "score": 0}])):
            file = folder / "files" / f"{split}.jsonl"
            file.write_text("".join(f"{json.dumps(row)}\n" for row in lines))

    def change(self, folder: Path) -> bool:
        import shutil

        for name in ("saved", "both"):
            shutil.rmtree(folder / name)
        self.prepare(folder)
        rows = [*ROWS, {"text": "more", "score": 0}]
        train, test = datasets.Dataset.from_list(rows), datasets.Dataset.from_list([{"text": "scored"}])
        for name, held in (("saved", train), ("both", datasets.DatasetDict(train=train, test=test))):
            shutil.rmtree(folder / name)
            held.save_to_disk(str(folder / name))
        (folder / "files" / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return True


def test_rows_are_numbered_and_named_by_their_split(hub, read, folder):
    records = read(hub(path=str(folder)))
    assert [(record.text, record.origin.line) for record in records[:2]] == [("text 0", 1), ("text 1", 2)]
    assert str(records[0].origin) == f"{folder} [train]:1"


def test_a_stream_gives_what_the_mapped_files_give(hub, read, folder):
    mapped, streamed = ([r.text for r in read(hub(path=str(folder), streaming=on))] for on in (False, True))
    assert streamed == mapped == [row["text"] for row in ROWS]


def test_messages_have_no_key_that_only_others_have(hub, read, tmp_path):
    datasets.Dataset.from_list(CHAT).save_to_disk(str(tmp_path / "saved"))
    assert read(hub(path=str(tmp_path / "saved")))[0].messages == CHAT[0]["messages"]


def test_a_split_is_cut_into_ranges_of_rows(hub, read, folder, monkeypatch):
    monkeypatch.setattr("xtuner_core.builtin.hub.dataset.SHARD_BYTES", 30)
    corpus = hub(path=str(folder))
    assert len(corpus.shards("train")) > 3
    assert [record.origin.line for record in read(corpus)] == list(range(1, 13))


def test_columns_that_nobody_looks_at_are_not_decoded(hub, folder):
    assert hub(path=str(folder)).parts["train"].rows.column_names == ["text"]


def test_a_saved_folder_and_one_of_its_files_are_found_by_their_suffix(read, tmp_path, folder):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    (file,) = (tmp_path / "saved").glob("*.arrow")
    for written in (tmp_path / "saved", file):
        plan = compose(overrides=["model=qwen3_moe:tiny", f"dataset={written}"]).require()
        (pick,) = [pick for pick in plan.picks if pick.slot == "dataset"]
        assert pick.name == "hub"
        corpus = HubCorpus(HubConfig(path=plan.config["dataset"][pick.key[8:]]["path"]), cache=tmp_path / "cache")
        assert len(read(corpus)) == len(ROWS)


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"path": "nobody/nothing"}, r"the dataset nobody/nothing cannot be loaded: "),
        ({"path": "files", "split": "trian"}, r"cannot be loaded: Unknown split \"trian\"\. Should be one of"),
        ({"path": "files", "streaming": True, "split": "trian"}, "it has no files of a split 'trian'; its splits are"),
        ({"path": "saved", "held_out_split": "test"}, "it has no split 'test'; its splits are train"),
        ({"path": "saved", "streaming": True}, "is on this disk and mapped, not streamed"),
        (
            {"path": "files", "text_key": "body"},
            r"\[train\]: no column 'body' or 'messages' or 'input_ids'; the columns",
        ),
        ({"path": "files", "config_name": "other"}, r"cannot be loaded: BuilderConfig 'other' not found"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_its_name_and_the_cause(
    hub, read, folder, tmp_path, monkeypatch, settings, cause
):
    monkeypatch.chdir(tmp_path)
    datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=cause) as refused:
        read(hub(**settings))
    assert refused.value.fix


def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(hub, read, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="is read with the library datasets, which is not installed") as refused:
        read(hub(path=str(folder)))
    assert refused.value.fix == "pip install 'xtuner-core[hub]'"


def test_a_script_of_a_dataset_is_never_run(hub, read, tmp_path):
    home, trace = tmp_path / "scripted", tmp_path / "trace"
    home.mkdir()
    (home / "scripted.py").write_text(f"open({str(trace)!r}, 'w')\n")
    with pytest.raises(DataError, match="cannot be loaded"):
        read(hub(path=str(home)))
    assert not trace.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"held_out_split": "train"},
        {"held_out_split": "test", "held_out_fraction": 0.1},
        {"streaming": True, "split": "train[:5]"},
        {"held_out_fraction": 1.0},
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings: dict[str, Any]):
    with pytest.raises(ValueError, match=r"held_out|stream"):
        HubConfig(path="x", **settings)
