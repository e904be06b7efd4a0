"""Installed but inactive code is never imported, and the launcher imports neither torch nor transformers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xtuner_core import Host, compose
from xtuner_core.discovery import discover

POISON = """
from pathlib import Path
Path({trace!r}).write_text("imported")
raise RuntimeError("poison")
"""
INDEX = ["model/poison", "device/poison", "hf/poison", "algorithm/poison", "observer/poison"]

LAUNCHER = """
import sys
from xtuner_core import Host, compose
compose().require()
host = Host(["qwen3_moe"])
host.catalog()
compose(plugins=["nobody"])
heavy = {"torch", "transformers", "numpy", "safetensors", "tokenizers"}
print(sorted(heavy & sys.modules.keys()))
"""


@pytest.fixture
def trace(install, tmp_path):
    """A file that appears when the installed poison is imported."""
    file = tmp_path / "trace"
    install("poison", POISON.format(trace=str(file)), offers=INDEX)
    return file


@pytest.mark.parametrize(
    "look",
    [
        discover,
        Host,
        lambda: Host().catalog(),
        lambda: Host(["qwen3_moe"]).recipes(),
        lambda: compose().require(),
        lambda: compose(overrides=["device=auto"]).require(),
        lambda: compose(overrides=["model=nothing", "observer=nobody"]),
        lambda: compose("no_such_recipe"),
    ],
    ids=["discover", "Host", "catalog", "recipes", "compose", "device=auto", "refusal", "no recipe"],
)
def test_no_look_at_what_is_installed_imports_it(trace, look):
    look()
    assert not trace.exists()


def test_the_trap_works_so_that_the_tests_above_mean_something(trace, problem):
    assert "raises RuntimeError: poison" in problem(plugins=["poison"])
    assert trace.exists()


def test_the_command_line_lists_poison_and_broken_plugins_without_importing_them(trace, install):
    install("needy", "import gone", requires=["zlib-of-the-future"])
    install("twin", "raise RuntimeError", distribution="north")
    install("twin", "raise RuntimeError", distribution="south")
    install.describe("stranger-ghost", ["[xtuner_core.plugins]", "ghost = gone.plugin"])
    environment = os.environ | {"PYTHONPATH": str(install.site), "COLUMNS": "400"}
    command = [sys.executable, "-m", "xtuner_core", "plugins", "list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["poison"].endswith("installed")
    assert lines["needy"].endswith("broken: it requires zlib-of-the-future, not installed")
    assert "broken: its name is also claimed by" in lines["twin"]
    assert lines["ghost"].endswith("broken: its package 'gone' is not there")
    assert not trace.exists()


def test_composing_and_cataloguing_import_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LAUNCHER], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"
