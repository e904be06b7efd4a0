"""Plugins that are installed for one test, by hand or by pip, and what is asked of a composition."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from xtuner_core import compose
from xtuner_core.composition import Composition
from xtuner_core.plan import Plan

STRANGERS = Path(__file__).parents[1] / "strangers"

HEADER = """\
from dataclasses import dataclass, field
from typing import Any
from xtuner_core.api import *

@hookimpl
def xtuner_plugin():
    return PluginInfo(contract="1.0", summary="made for a test")
"""

RECORDS = {
    "model": ("xtuner_models", "ModelProvider"),
    "parallelism": ("xtuner_parallelisms", "ParallelismProvider"),
    "device": ("xtuner_devices", "DeviceProvider"),
    "loss": ("xtuner_losses", "LossProvider"),
    "algorithm": ("xtuner_algorithms", "AlgorithmProvider"),
}


@dataclass
class Installer:
    """Lays distributions into a folder on `sys.path`, in the form in which pip leaves them."""

    site: Path
    packages: set[str] = field(default_factory=set)

    def __call__(
        self,
        name: str,
        source: str,
        *,
        offers: Sequence[str] = (),
        version: str = "1.0",
        requires: Sequence[str] = (),
        editable: bool = False,
        distribution: str | None = None,
        module: str | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Path:
        """Install one plugin.

        :param source: of its entry module.
        :param offers: keys of its offers index.
        :param files: further files of its package.
        :return: the folder of its package.
        """
        distribution = distribution or f"stranger-{name}"
        package = (module or f"{distribution.replace('-', '_')}.plugin").partition(".")[0]
        self._write_package(package, {"__init__.py": "", "plugin.py": source, **(files or {})})
        module = module or f"{package}.plugin"
        lines = ["[xtuner_core.plugins]", f"{name} = {module}", "[xtuner_core.offers]"]
        lines += [f"{offer} = {module}" for offer in offers]
        self.describe(distribution, lines, version=version, requires=requires, editable=editable)
        return self.site / package

    def _write_package(self, package: str, files: Mapping[str, str]) -> None:
        self.packages.add(package)
        for name, text in files.items():
            file = self.site / package / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")

    def describe(
        self,
        distribution: str,
        entry_points: Sequence[str],
        *,
        version: str = "1.0",
        requires: Sequence[str] = (),
        editable: bool = False,
    ) -> Path:
        """Write a distribution's metadata in place of what it had before."""
        for old in self.site.glob(f"{distribution.replace('-', '_')}-*.dist-info"):
            shutil.rmtree(old)
        folder = self.site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        metadata = ["Metadata-Version: 2.4", f"Name: {distribution}", f"Version: {version}"]
        metadata += [f"Requires-Dist: {name}" for name in requires]
        (folder / "METADATA").write_text("\n".join(metadata) + "\n", encoding="utf-8")
        (folder / "entry_points.txt").write_text("\n".join(entry_points) + "\n", encoding="utf-8")
        if editable:
            url = {"url": self.site.as_uri(), "dir_info": {"editable": True}}
            (folder / "direct_url.json").write_text(json.dumps(url), encoding="utf-8")
        importlib.invalidate_caches()
        return folder

    def offer(self, name: str, slot: str, fields: str = "", *, source: str = "", **options: object) -> Path:
        """Install a plugin with one offer, which bears its name.

        :param fields: further arguments of the provider, as source.
        :param source: of what the arguments name; its function `build` is the factory where there is one.
        """
        factory = f"stranger_{name}.plugin:build" if "def build(" in source else "math:floor"
        hook, record = RECORDS.get(slot, ("xtuner_providers", "Provider"))
        reserved = f'slot="{slot}", ' if record == "Provider" else ""
        if slot == "device":
            fields = f'probe="math:floor", {fields}'
        text = f"""{HEADER}
{source}
@hookimpl
def {hook}():
    return [{record}({reserved}name="{name}", factory="{factory}", summary="made for a test", {fields})]
"""
        return self(name, text, offers=[f"{slot}/{name}"], **options)  # type: ignore[arg-type]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installer]:
    """Installs plugins for one test."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    installer = Installer(site)
    yield installer
    _forget_modules(installer.packages)


def _forget_modules(packages: set[str]) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def strangers_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the distributions of `tests/strangers`, from a copy of them."""
    root = tmp_path_factory.mktemp("strangers")
    names = sorted(folder.name for folder in STRANGERS.iterdir() if (folder / "pyproject.toml").exists())
    for name in names:
        shutil.copytree(STRANGERS / name, root / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    pip += ["--no-deps", "--no-build-isolation", "--no-compile", "--target", str(root / "site")]
    subprocess.run([*pip, *(str(root / name) for name in names)], check=True)
    return root / "site"


@pytest.fixture
def strangers(strangers_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The strangers, installed."""
    monkeypatch.syspath_prepend(str(strangers_site))
    yield strangers_site
    _forget_modules({folder.name for folder in strangers_site.iterdir()})


@pytest.fixture
def chosen() -> Callable[..., dict[str, str]]:
    """What a run takes for each key, `name` or `name:preset`; it must compose."""

    def compose_and_list(*arguments: object, **options: object) -> dict[str, str]:
        plan = compose(*arguments, **options).require()  # type: ignore[arg-type]
        return {pick.key: f"{pick.name}:{pick.preset}" if pick.preset else pick.name for pick in plan.picks}

    return compose_and_list


@pytest.fixture
def planned() -> Callable[..., Plan]:
    """The plan of a run that must compose."""
    return lambda *arguments, **options: compose(*arguments, **options).require()


@pytest.fixture
def refused() -> Callable[..., Composition]:
    """A composition that must have problems; they are sentences, and plain data."""

    def compose_and_fail(*arguments: object, **options: object) -> Composition:
        composition = compose(*arguments, **options)  # type: ignore[arg-type]
        assert composition.plan is None
        assert composition.problems
        assert json.loads(json.dumps([problem.as_data() for problem in composition.problems]))
        return composition

    return compose_and_fail


@pytest.fixture
def problem(refused: Callable[..., Composition]) -> Callable[..., str]:
    """The one problem of a composition, as a person reads it."""

    def only(*arguments: object, **options: object) -> str:
        problems = refused(*arguments, **options).problems
        assert len(problems) == 1, [str(item) for item in problems]
        return str(problems[0])

    return only
