"""The example as a platform would import it, and runs that take a second."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLE = Path(__file__).with_name("example.py")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `example`, found by its name as the factory of its plugin wants it."""
    spec = importlib.util.spec_from_file_location("embedding_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def watch() -> Any:
    """An observer of the caller's own that keeps losses and ends, and may act on a step."""

    class Watch:
        def __init__(self, act: Any = lambda step: None) -> None:
            self.losses: list[float] = []
            self.ends: list[str] = []
            self.act = act

        def on_start(self, start: Any) -> None:
            self.folder = start.folder

        def on_step(self, step: Any) -> None:
            self.losses.append(step.result.loss)
            self.act(step)

        def on_end(self, end: Any) -> None:
            self.ends.append(end.status)

    return Watch
