"""The template passes the contract suites as it stands: built and installed outside the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TEMPLATE = Path(__file__).with_name("template")
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")


def python(*arguments: str, cwd: Path, path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_template_installed_alone_beside_the_core_passes_its_contract_suites(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(TEMPLATE, source, ignore=shutil.ignore_patterns("__pycache__"))
    python(*PIP, "--no-build-isolation", "--no-compile", "--target", str(site), str(source), cwd=tmp_path, path=site)
    shutil.rmtree(source / "src")
    said = python("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", cwd=source, path=site)
    (summary,) = re.findall(r"^(\d+) passed in .*$", said, flags=re.MULTILINE)
    assert int(summary) > 40
