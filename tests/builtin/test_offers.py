"""What every built-in plugin has in common: hooks only, import-light, an offers index that tells the truth."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from xtuner_core_kernels.operator import Implementation

import xtuner_core.builtin
from xtuner_core.records import Provider

ROOT = Path(__file__).parents[2]
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
PLUGINS = GROUPS["xtuner_core.plugins"]
HOOKS = (
    "xtuner_models",
    "xtuner_parallelisms",
    "xtuner_devices",
    "xtuner_losses",
    "xtuner_algorithms",
    "xtuner_providers",
)


def entry(name: str) -> ModuleType:
    return importlib.import_module(PLUGINS[name])


def offers(module: ModuleType) -> list[Provider[Any]]:
    return [provider for hook in HOOKS if hasattr(module, hook) for provider in getattr(module, hook)()]


def load(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def test_every_folder_of_a_built_in_plugin_has_an_entry_point():
    folder = Path(xtuner_core.builtin.__file__).parent
    assert {path.parent.name for path in folder.glob("*/plugin.py")} == set(PLUGINS)


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_says_what_it_is_and_offers_something(name: str):
    info = entry(name).xtuner_plugin()
    assert (info.contract, bool(info.summary)) == ("1.0", True)
    assert offers(entry(name))


def test_entry_modules_configurations_and_probes_load_no_torch():
    modules = [*PLUGINS.values()]
    for name in PLUGINS:
        for provider in offers(entry(name)):
            light = [provider.config, getattr(provider, "probe", None)]
            modules += [reference.partition(":")[0] for reference in light if isinstance(reference, str)]
    code = (
        f"import importlib, sys\nfor m in {sorted(set(modules))}: importlib.import_module(m)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", PLUGINS)
def test_factories_and_configurations_exist(name: str):
    for provider in offers(entry(name)):
        factory = load(provider.factory)
        assert isinstance(factory, Implementation) if provider.slot == "operator" else callable(factory)
        assert provider.config is None or load(provider.config)()


def test_the_offers_index_equals_the_records():
    listed = {
        f"{provider.slot}/{provider.name}": PLUGINS[name]
        for name in PLUGINS
        for provider in offers(entry(name))
        if provider.slot != "operator"
    }
    listed |= {
        f"file/{suffix[1:]}": PLUGINS[name]
        for name in PLUGINS
        for provider in offers(entry(name))
        for suffix in getattr(provider, "suffixes", ())
    }
    assert listed == GROUPS["xtuner_core.offers"]


def test_the_operators_offered_are_those_that_the_kernels_distribution_holds():
    import xtuner_core_kernels

    folder = Path(xtuner_core_kernels.__file__).parent
    held = {
        f"{path.parent.name}.{path.stem}"
        for path in folder.glob("*/*.py")
        if (path.parent / "reference.py").exists() and "\nIMPLEMENTATION = " in path.read_text()
    }
    offered = {provider.name: load(provider.factory) for provider in offers(entry("kernels"))}
    assert set(offered) == held
    assert all(name == f"{found.operator}.{found.name}" for name, found in offered.items())
