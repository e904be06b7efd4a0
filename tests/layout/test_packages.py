"""How the repository is laid out: folders that are no packages, dependencies with reasons, names that stay visible."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

NO_PACKAGES = ("kernels", "plugins", "contrib", "tests")


@pytest.mark.parametrize("folder", NO_PACKAGES)
def test_folders_beside_the_core_are_no_packages(repository, folder):
    """An editable install of the core puts the repository on `sys.path`; `kernels` is also somebody's package."""
    found = [*(repository / folder).glob("__init__.py"), *(repository / folder).glob("*/__init__.py")]
    assert [str(path.relative_to(repository)) for path in found] == []


def test_every_dependency_says_why(projects):
    dependencies = [(path, *line) for path in projects for line in dependency_lines(path.read_text())]
    assert len(dependencies) > 12
    assert [f"{path}: {name}" for path, name, reason in dependencies if len(reason) < 5] == []


def test_the_search_for_dependencies_reads_reasons_beside_and_above():
    text = '[project]\ndependencies = [\n  "a>=1",  # beside\n  # above\n  "b",\n  "c",\n]\n'
    assert list(dependency_lines(text)) == [("a>=1", "beside"), ("b", "above"), ("c", "")]


def dependency_lines(text: str):
    """Each requirement of `dependencies` and of the extras, with the comment beside it or above."""
    inside, above = False, ""
    for line in map(str.strip, text.splitlines()):
        opens = re.match(r"[\w-]+ = \[(?!\[)", line)
        if line.startswith("["):
            section = line
        inside = inside and line != "]" and not line.startswith("[")
        if opens and (line.startswith("dependencies") or section == "[project.optional-dependencies]"):
            inside = True
        if not inside:
            continue
        for name in re.findall(r'"([^"]+)"', line.partition("#")[0]):
            yield name, line.partition("#")[2].strip() or above
        above = line.lstrip("# ") if line.startswith("#") else ""


EVERY_MODULE = """
import importlib, json, pkgutil, sys, types
import xtuner_core
for module in pkgutil.walk_packages(xtuner_core.__path__, "xtuner_core."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
hidden = [name for name in xtuner_core.__all__ if isinstance(getattr(xtuner_core, name), types.ModuleType)]
called = [name for name in ("compose", "run") if isinstance(getattr(xtuner_core, name), types.FunctionType)]
print(json.dumps([hidden, called, sum(name.startswith("xtuner_core.") for name in sys.modules)]))
"""


def test_no_module_hides_a_name_of_the_public_api():
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    hidden, called, modules = json.loads(done.stdout)
    assert (hidden, called) == ([], ["compose", "run"])
    assert modules > 150
