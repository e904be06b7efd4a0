"""What a person reads when something fails, and the exit code that a script sees."""

from __future__ import annotations

import os
import warnings

import pytest

import xtuner_core
from xtuner_core.contract_version import check_contract
from xtuner_core.errors import DataError


def test_an_unknown_key_names_the_nearest_one_and_its_owner(cli):
    result = cli("config", "show", "optimizer.learning_rat=1")

    assert result.code == 2
    assert result.out == ""
    assert "there is no key optimizer.learning_rat (command line)" in result.err
    assert "did you mean 'learning_rate'?" in result.err
    assert "plugin 'adamw'" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("args", "error", "fix"),
    [
        (["rum"], "there is no command 'rum'", "write xtuner-core run"),
        (["plugins", "lsit"], "there is no command 'lsit'", "write xtuner-core plugins list"),
        (["run", "--dry"], "No such option", "see xtuner-core run --help"),
        (["run", "a.yaml", "b.yaml"], "'a.yaml' and 'b.yaml' are both no key=value", "write key=value"),
        (["run", "--output-plan"], "prints the plan instead of running it", "add --dry-run"),
        (["--plugins", "cpu", "run"], "this one is the core's", "write xtuner-core run --plugins cpu"),
        (["export", "nowhere", "out"], "nowhere is no run's folder", "name a folder below runs/"),
        (["config", "show", "missing.yaml"], "the recipe missing.yaml cannot be read", ""),
        (["config", "show", "--plugins", "qwen3-moe"], "no plugin 'qwen3-moe' is installed", "write 'qwen3_moe'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_use_is_a_sentence_a_way_out_and_exit_code_2(cli, args, error, fix):
    result = cli(*args)

    assert result.code == 2
    assert result.err.startswith("error: ")
    assert error in result.err
    assert fix in result.err


@pytest.mark.parametrize(
    "change", [["steps=3"], ["recipe.yaml"], ["--plugins", "qwen3_moe"], ["--log-format", "json"]], ids=" ".join
)
def test_a_replay_refuses_every_change(cli, change):
    result = cli("run", "--from", "runs/1", *change)

    assert result.code == 2
    assert f"--from repeats a run exactly, so {' '.join(change)} has no place beside it" in result.err


def fail_with(monkeypatch, error: BaseException) -> None:
    def run(*_, **__):
        raise error

    monkeypatch.setattr(xtuner_core, "run", run, raising=False)


def test_an_error_of_ours_decides_the_exit_code(cli, monkeypatch):
    fail_with(monkeypatch, DataError("line 7 of a.txt is no text", fix="convert it to UTF-8"))

    result = cli("run")

    assert result.code == 4
    assert result.err == "error: line 7 of a.txt is no text\nfix: convert it to UTF-8\n"


def test_hints_that_a_run_left_as_notes_are_shown(cli, monkeypatch):
    error = DataError("no")
    error.add_note("try the other file")
    fail_with(monkeypatch, error)

    assert cli("run").err == "error: no\nhint: try the other file\n"


def test_a_bug_of_the_core_is_one_line_without_traceback(cli, monkeypatch):
    fail_with(monkeypatch, KeyError("width"))

    result = cli("run")

    assert result.code == 1
    assert "KeyError: 'width'" in result.err
    assert "this is a bug of xtuner-core\n" in result.err
    assert "--debug" in result.err
    assert "Traceback" not in result.err


def test_debug_shows_the_traceback(cli, monkeypatch):
    fail_with(monkeypatch, KeyError("width"))

    assert "Traceback (most recent call last)" in cli("--debug", "run").err


def test_a_full_disk_is_no_bug(cli, monkeypatch):
    fail_with(monkeypatch, OSError(28, "No space left on device"))

    result = cli("run")

    assert result.code == 1
    assert "No space left on device" in result.err
    assert "this is a bug" not in result.err


def test_an_interrupt_has_the_exit_code_of_one(cli, monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())

    result = cli("run")

    assert result.code == 130
    assert result.err.strip() == "error: interrupted"


def test_a_bug_of_a_plugin_is_told_with_its_name(cli, site, source):
    body = """
import click
@click.command()
def fall(): raise KeyError('x')
@hookimpl
def xtuner_commands(): return [Command(name='fall', summary='falls', target='faller:fall')]
"""
    site.add("stranger-faller", plugins={"faller": "faller"}, modules={"faller": source(body)})

    result = cli("--plugins", "faller", "fall")

    assert result.code == 1
    assert "this is a bug of plugin 'faller' (stranger-faller 1.2)" in result.err


def test_a_plugin_for_an_older_contract_is_a_warning_line(cli, monkeypatch):
    monkeypatch.setitem(check_contract.__kwdefaults__, "core", (1, 1))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = cli("plugins", "show", "cpu")

    assert result.code == 0
    line = "warning: plugin 'cpu' (xtuner-core 0.1.0) is written for contract 1.0, this core speaks 1.1"
    assert f"{line}; it works until 1.2" in result.err.splitlines()


def test_torch_is_kept_from_loading_device_backends(cli):
    cli("--version")

    assert os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] == "0"
