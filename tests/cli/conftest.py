"""Strangers' plugins as installed distributions in a folder of the test's, and the command line in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from xtuner_core.cli.main import main


@dataclass
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the command in this process."""
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "put back afterwards")

    def call(*args: str) -> Result:
        capsys.readouterr()
        code = main(args)
        return Result(code, *capsys.readouterr())

    return call


@dataclass
class Site:
    """A folder that is searched for distributions, as site-packages is."""

    folder: Path

    def add(
        self,
        distribution: str,
        *,
        plugins: Mapping[str, str],
        offers: Mapping[str, str] | None = None,
        modules: Mapping[str, str] | None = None,
    ) -> None:
        """Install a distribution: its metadata, and the source of its modules."""
        info = self.folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        groups = {"xtuner_core.plugins": plugins, "xtuner_core.offers": offers or {}}
        lines = [
            f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for name, source in (modules or {}).items():
            (self.folder / f"{name}.py").write_text(source)

    def python(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A fresh interpreter that sees these distributions beside the installed ones."""
        env = {**os.environ, "PYTHONPATH": str(self.folder)}
        return subprocess.run(
            [sys.executable, *args], env=env, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Visible to this process too, and to those that it starts."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return Site(folder)


def plugin_source(body: str = "", *, info: str = "") -> str:
    """An entry module that says what it is, and whatever else stands in `body`."""
    return (
        "from xtuner_core.api import *\n"
        "@hookimpl\n"
        f"def xtuner_plugin(): return PluginInfo(contract='1.0', summary='a stranger'{info})\n"
        f"{body}\n"
    )


@pytest.fixture
def source() -> Callable[..., str]:
    """Writes an entry module."""
    return plugin_source
