"""`metrics.jsonl`: one flat JSON object a step, written so that a kill loses at most the line in progress."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Any

from xtuner_core.contracts.observer import RunEnd, RunStart, RunStep

FILE = "metrics.jsonl"


class JsonlObserver:
    """Appends to the file; each line is one write to the system."""

    def __init__(self, file: Path) -> None:
        _drop_cut_line(file)
        self._descriptor: int | None = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def on_start(self, start: RunStart) -> None:
        """Nothing is written before the first step."""

    def on_step(self, step: RunStep) -> None:
        """Append the step's line."""
        assert self._descriptor is not None, "on_step after on_end"
        os.write(self._descriptor, (json.dumps(flat(step), allow_nan=False) + "\n").encode())

    def on_end(self, end: RunEnd) -> None:
        """Close the file."""
        del end
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def flat(step: RunStep) -> dict[str, Any]:
    """Flatten a step into one mapping: names of nested figures joined by dots, nested lists as they are.

    JSON has no infinities and no NaN: these become the strings `inf`, `-inf` and `nan`, which `float` reads.
    """
    return dict(_items("", step))


def _items(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _items(f"{name}.{key}", item)
    elif hasattr(value, "__dataclass_fields__"):
        # The step's own names are unique and need no prefix; `result` is only where they are kept.
        for each in fields(value):
            if each.name != "loss_by_dataset":  # stands among the metrics
                yield from _items(each.name, getattr(value, each.name))
    else:
        yield name, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else repr(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _drop_cut_line(file: Path) -> None:
    """Cut off what a killed run left of its last line."""
    if file.exists():
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(file, whole)


def build(config: None, *, folder: Path) -> JsonlObserver:
    """Open `metrics.jsonl` in the run's folder."""
    del config
    return JsonlObserver(folder / FILE)
