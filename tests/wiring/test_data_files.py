"""`dataset=FILE`: the suffix finds who reads it, a stranger's too, and the plan keeps where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from xtuner_core.cli.main import main
from xtuner_core.host import Host
from xtuner_core.testing import DatasetContract, tiny_host

MODEL = "model=qwen3_moe:tiny"
"""A run on data of one's own is asked for a model."""
READER = """
from dataclasses import dataclass
from xtuner_core.api import *

@dataclass
class Config:
    path: str = "???"

@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="made for a test")

@hookimpl
def xtuner_providers():
    return [DatasetProvider(name="NAME", factory="math:floor", config=Config, suffixes=SUFFIXES, summary="-")]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with a few files in it."""
    home = tmp_path / "home"
    for name in ("a.jsonl", "My Talks-2.JSONL.gz", "t.parquet", "tables/x.parquet", "mixed/a.txt", "mixed/b.jsonl"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"")
    (home / "bare").mkdir()
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def reader(install):
    """Installs a plugin whose dataset reads files of some suffixes."""

    def installed(name: str, *suffixes: str, listed: bool = True) -> None:
        source = READER.replace("NAME", name).replace("SUFFIXES", repr(suffixes))
        index = [f"file/{suffix[1:]}" for suffix in suffixes] if listed else []
        install(name, source, offers=[f"dataset/{name}", *index])

    return installed


@pytest.mark.parametrize(
    ("written", "entry", "name"),
    [
        ("a.jsonl", "a", "jsonl"),
        ("./a.jsonl", "a", "jsonl"),
        ("./My Talks-2.JSONL.gz", "my_talks_2", "jsonl"),
        ("t.parquet", "t", "parquet"),
        ("./tables", "tables", "parquet"),
        ("tables/*.parquet", "tables", "parquet"),
        ("./mixed/*.txt", "mixed", "text"),
        ("/nowhere/2024.jsonl", "data_2024", "jsonl"),
        ("./name.txt", "data_name", "text"),
    ],
)
def test_a_file_stands_for_the_dataset_that_reads_it_under_a_clean_name(planned, folder, written, entry, name):
    plan = planned(overrides=[MODEL, f"dataset={written}"])
    assert [(pick.key, pick.name) for pick in plan.picks if pick.slot == "dataset"] == [(f"dataset.{entry}", name)]
    assert plan.config["dataset"][entry]["path"] == str(folder / written)
    assert plan.origins[f"dataset.{entry}.path"] == f"dataset {written}"


def test_a_recipe_names_files_too_alone_or_with_settings_beside(planned, folder):
    recipe = {
        "model": "qwen3_moe:tiny",
        "algorithm": "pretrain",
        "dataset": {"mine": "./a.jsonl", "yours": {"name": "./t.parquet", "held_out_fraction": 0.01}, "kjv": {}},
    }
    plan = planned(recipe)
    found = {pick.key: pick.name for pick in plan.picks if pick.slot == "dataset"}
    assert found == {"dataset.mine": "jsonl", "dataset.yours": "parquet", "dataset.kjv": "kjv"}
    assert plan.config["dataset"]["mine"]["path"] == str(folder / "a.jsonl")
    assert plan.config["dataset"]["yours"]["held_out_fraction"] == 0.01


def test_a_file_and_settings_may_stand_in_any_order_on_the_command_line(planned):
    for overrides in (["dataset=a.jsonl", "dataset.a.text_key=body"], ["dataset.a.text_key=body", "dataset=a.jsonl"]):
        assert planned(overrides=[MODEL, *overrides]).config["dataset"]["a"]["text_key"] == "body"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "./notes.doc",
            "./notes.doc is no folder, and no installed plugin reads files of its suffix; these are read: ",
        ),
        ("notes.doc", "notes.doc is no folder, and no installed plugin reads files of its suffix; these are read: "),
        ("./bare", "the folder bare holds no file that an installed plugin reads; these are read: "),
        ("./mixed", "the folder mixed holds files of several kinds: .jsonl, .txt; name one file or a glob, or write "),
        ("jsonl", "dataset.jsonl.path: a value is required, and none is given; write dataset.jsonl.path=VALUE"),
    ],
)
def test_a_file_that_nobody_reads_is_refused_with_what_is_read(problem, written, message):
    found = problem(overrides=[MODEL, f"dataset={written}"])
    assert message in found
    assert ("these are read" in message) == (".jsonl, .jsonl.gz, .jsonl.zst" in found)


def test_a_preset_and_a_dataset_with_a_dot_in_its_name_are_no_files(reader, chosen):
    reader("odd", ".odd")
    assert "no installed plugin offers the dataset 'kjvv'" in str(_refusal("kjvv"))
    assert chosen(overrides=[MODEL, "dataset=x.odd"])["dataset.x"] == "odd"


def _refusal(name: str) -> object:
    from xtuner_core import compose

    return compose(overrides=[MODEL, f"dataset={name}"]).problems[0]


def test_the_longest_suffix_wins(reader, chosen):
    reader("chat", ".chat.jsonl")
    picks = [chosen(overrides=[MODEL, f"dataset={name}"]) for name in ("a.jsonl", "a.chat.jsonl", "A.Chat.JSONL")]
    assert [next(v for k, v in each.items() if k.startswith("dataset")) for each in picks] == ["jsonl", "chat", "chat"]


def test_two_active_readers_of_one_suffix_are_refused_with_both_and_the_way_out(reader, problem, chosen):
    reader("rival", ".jsonl")
    message = problem(plugins=["rival"], overrides=[MODEL, "dataset=a.jsonl"])
    assert message == (
        "dataset.a=a.jsonl (command line): files ending in .jsonl are read by dataset 'jsonl' of plugin 'files' "
        "(xtuner-core 0.1.0) and dataset 'rival' of plugin 'rival' (stranger-rival 1.0); "
        "write dataset.NAME.name=jsonl or dataset.NAME.name=rival, and dataset.NAME.path"
    )
    overrides = [f"dataset.{name}.{key}" for name in ("jsonl", "rival") for key in (f"name={name}", "path=a.jsonl")]
    picks = chosen(plugins=["rival"], overrides=[MODEL, *overrides])
    assert (picks["dataset.jsonl"], picks["dataset.rival"]) == ("jsonl", "rival")


def test_a_reader_that_is_not_active_takes_no_suffix_from_one_that_is(reader, chosen):
    reader("rival", ".jsonl")
    assert chosen(overrides=[MODEL, "dataset=a.jsonl"])["dataset.a"] == "jsonl"


def test_two_inactive_readers_are_refused_with_both_and_the_way_out(reader, problem):
    reader("north", ".odd")
    reader("south", ".odd")
    assert problem(overrides=[MODEL, "dataset=a.odd"]) == (
        "dataset.a=a.odd (command line): files ending in .odd are read by the plugins 'north' and 'south'; "
        "write dataset.NAME.name=north or dataset.NAME.name=south, and dataset.NAME.path"
    )


def test_an_index_that_lists_a_suffix_which_its_plugin_does_not_read_is_that_plugins_fault(install, problem):
    install("idle", READER.replace("NAME", "idle").replace("SUFFIXES", "()"), offers=["dataset/idle", "file/idle"])
    assert "lists file/idle in its offers index, but does not offer it" in problem(overrides=[MODEL, "dataset=a.idle"])


def test_a_suffix_of_a_wrong_form_is_refused(reader, problem):
    reader("odd", "jsonl", listed=False)
    assert "but its suffixes ('jsonl',) are not of the form '.jsonl'" in problem(plugins=["odd"])


def test_the_command_line_tells_what_a_plugin_reads(capsys):
    assert main(["plugins", "show", "files", "--json"]) == 0
    offers = {offer["name"]: offer["suffixes"] for offer in json.loads(capsys.readouterr().out)["offers"]}
    assert offers["parquet"] == [".parquet"]
    assert main(["plugins", "show", "files"]) == 0
    assert "reads files ending in .jsonl, .jsonl.gz" in capsys.readouterr().out
    assert main(["plugins", "list", "--json"]) == 0
    (listed,) = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "files"]
    assert {"dataset/jsonl", "file/jsonl.gz"} <= set(listed["offers"])


def test_a_strangers_file_finds_its_plugin_through_the_index(strangers, planned, folder):
    (folder / "old.ledger").write_text("one|two")
    plan = planned(overrides=[MODEL, "dataset=old.ledger"])
    pick = plan.pick("dataset.old")
    assert (pick.name, pick.plugin) == ("ledger", "ledger")
    assert plan.config["dataset"]["old"]["path"] == str(folder / "old.ledger")


class TestLedger(DatasetContract):
    """The stranger's dataset, as its author would test it."""

    plugin, broken = "ledger", 1
    configs = ({"path": "a.ledger", "held_out_fraction": 0.4}, {"path": "a.ledger", "titles": False})

    @pytest.fixture(scope="class")
    @classmethod
    def host(cls, strangers_site: Path) -> Iterator[Host]:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(strangers_site))
            yield tiny_host([cls.plugin])

    def prepare(self, folder: Path) -> None:
        lines = [f"title {number}|text {number}" for number in range(8)]
        (folder / "a.ledger").write_text("\n".join([*lines, "no bar"]))

    def change(self, folder: Path) -> bool:
        with (folder / "a.ledger").open("a") as file:
            file.write("\nnew|line")
        return True
