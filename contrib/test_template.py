"""A new plugin passes the contract suites as it is written: built and installed outside the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xtuner_core.scaffold.kinds import KINDS
from xtuner_core.scaffold.write import NewPlugin, write_plugin

TEMPLATE = Path(__file__).with_name("template")
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")


def python(*arguments: str, cwd: Path, path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def count_passed(source: Path, site: Path) -> int:
    """Install a plugin into a folder of its own, and run its tests against what was installed."""
    arguments = ("--no-build-isolation", "--no-compile", "--target", str(site), str(source))
    python(*PIP, *arguments, cwd=source.parent, path=site)
    shutil.rmtree(source / "src")
    said = python("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", cwd=source, path=site)
    (summary,) = re.findall(r"^(\d+) passed in .*$", said, flags=re.MULTILINE)
    return int(summary)


def test_the_template_is_what_the_command_writes(tmp_path):
    written = write_plugin(NewPlugin("acme_dense", "model", "acme_xtuner_template"), tmp_path / "new")
    names = [file.relative_to(tmp_path / "new") for file in written]
    assert {str(name) for name in names} == {
        str(file.relative_to(TEMPLATE))
        for file in TEMPLATE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    for file, name in zip(written, names, strict=True):
        assert file.read_text() == (TEMPLATE / name).read_text(), name


def test_the_template_installed_alone_beside_the_core_passes_its_contract_suites(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(TEMPLATE, source, ignore=shutil.ignore_patterns("__pycache__"))
    assert count_passed(source, tmp_path / "site") > 40


@pytest.mark.full
@pytest.mark.parametrize("slot", [slot for slot in KINDS if slot != "model"])
def test_a_new_plugin_of_any_slot_passes_its_contract_suites(tmp_path, slot):
    write_plugin(NewPlugin(f"acme_{slot}", slot, f"xtuner_acme_{slot}"), tmp_path / "source")
    assert count_passed(tmp_path / "source", tmp_path / "site") > 12
