"""`new-plugin` writes a distribution, whole or not at all; that it passes its suites is tested in `contrib`."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from xtuner_core.records import RESERVED_SLOTS, SLOTS
from xtuner_core.scaffold.kinds import KINDS


def test_there_is_a_template_for_every_slot_that_has_a_contract():
    assert set(KINDS) == set(SLOTS) - RESERVED_SLOTS


@pytest.mark.parametrize("slot", KINDS)
def test_what_it_writes_is_python_and_its_entry_points_name_it(cli, tmp_path, slot):
    said = cli("new-plugin", "my_thing", "--slot", slot, "--folder", str(tmp_path / "new"))
    assert said.code == 0, said.err
    files = [Path(line) for line in said.out.splitlines() if line]
    for file in files:
        assert file.is_file()
        if file.suffix == ".py":
            assert ast.get_docstring(ast.parse(file.read_text()))
    project = tomllib.loads((tmp_path / "new" / "pyproject.toml").read_text())["project"]
    assert project["name"] == "xtuner-my-thing"
    assert project["entry-points"]["xtuner_core.plugins"] == {"my_thing": "xtuner_my_thing.plugin"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["MyThing", "--slot", "loss"], "'MyThing' cannot be a plugin's name"),
        (["thing", "--slot", "loss", "--package", "my-thing"], "'my-thing' cannot be a package's name"),
        (["thing", "--slot", "los"], "'los' is not one of"),
        (["thing", "--slot", "loss", "--folder", "{there}"], "exists already"),
        (["thing", "--slot", "loss", "--folder", "{there}/file/below"], "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_left(cli, tmp_path, monkeypatch, arguments, complaint):
    there = tmp_path / "there"
    there.mkdir()
    (there / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    said = cli("new-plugin", *(argument.format(there=there) for argument in arguments))
    assert said.code == 2
    assert complaint in said.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there"]
