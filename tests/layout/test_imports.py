"""Who may import whom: the design's arrows, and entry modules that load nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

ENTRIES = """
import importlib, json, sys
from importlib.metadata import entry_points
names = {point.name for point in entry_points(group="xtuner_core.plugins") if importlib.import_module(point.module)}
print(json.dumps([sorted(names), sorted({"torch", "transformers", "numpy", "omegaconf", "rich"} & sys.modules.keys())]))
"""


def test_the_arrows_of_the_design_hold(repository):
    done = subprocess.run([sys.executable, "-c", LINT], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "0 broken" in done.stdout


def test_no_plugins_entry_module_loads_torch():
    done = subprocess.run([sys.executable, "-c", ENTRIES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, heavy = json.loads(done.stdout)
    assert {"cpu", "cuda", "pretrain", "adamw", "qwen3_moe", "llama"} <= set(names)
    assert heavy == []
