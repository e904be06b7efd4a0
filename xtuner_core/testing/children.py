"""What a suite asks of a process of its own: that nothing heavy is imported, that a plan replays. Imports no torch."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HEAVY = ("torch", "transformers", "numpy", "safetensors")
"""Packages that neither activation nor a configuration may import."""


def ask_child(question: str, *arguments: str) -> Any:
    """Call a function of this module in a fresh interpreter, and return what it returns, as plain data."""
    call = f"children.{question}(*{arguments!r})"
    code = f"import json; from xtuner_core.testing import children; print(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{question}{arguments} fails in a fresh process:\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def activation(plugin: str) -> dict[str, list[str]]:
    """Heavy packages that are imported after activation, and after its configurations and probes as well."""
    from xtuner_core.host import Host
    from xtuner_core.loading import load

    host = Host([plugin])
    activated = _heavy()
    for offer in host.registry.of_plugin(plugin):
        host.config_class(offer)
        probe = getattr(offer.provider, "probe", None)
        if probe:
            load(probe, plugin=plugin, distribution=offer.distribution)
    host.settings_class(plugin)
    return {"activation": activated, "configurations and probes": _heavy()}


def probe(module: str, name: str) -> dict[str, Any]:
    """What a device's probe finds, and the heavy packages that it imported."""
    found = getattr(importlib.import_module(module), name)()
    return {"count": found.count, "reason": found.reason, "heavy": _heavy()}


def replayed_digest(folder: str, plugin: str) -> str:
    """The digest of a plan that was replayed here."""
    from xtuner_core.testing.tiny_run import tiny_host
    from xtuner_core.worker import replay

    plan, _ = replay(Path(folder), host=tiny_host([plugin]))
    return plan.digest


def _heavy() -> list[str]:
    return sorted(name for name in HEAVY if name in sys.modules)
