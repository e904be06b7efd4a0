"""What the command line may import before it has to: asked of fresh interpreters."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "structlog", "rich", "omegaconf", "numpy")
LISTING = "import sys, json; from xtuner_core.cli.main import main; code = main(sys.argv[1:])"
LISTING += "; sys.stderr.write(json.dumps([code, sorted(m for m in sys.modules if '.' not in m)]))"


def imported(*args: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LISTING, *args], capture_output=True, text=True, check=True, timeout=60
    )
    code, modules = json.loads(done.stderr)
    assert code == 0
    assert done.stdout
    return set(modules)


@pytest.mark.parametrize("args", [["--help"], ["run", "--help"], ["plugins", "list"]], ids=" ".join)
def test_help_and_plugins_list_import_nothing_heavy(args: list[str]):
    assert imported(*args).isdisjoint(HEAVY)


@pytest.mark.parametrize("args", [["plugins", "show", "qwen3_moe"], ["config", "show"]], ids=" ".join)
def test_what_composes_in_the_launcher_imports_no_torch(args: list[str]):
    assert imported(*args).isdisjoint({"torch", "transformers"})
