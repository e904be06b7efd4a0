"""`metrics.jsonl`: one flat JSON object a step, written so that a kill loses at most the line in progress."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from math import inf, isfinite
from pathlib import Path
from typing import Any

from xtuner_core.contracts.observer import RunEnd, RunStart, RunStep

FILE = "metrics.jsonl"


class JsonlObserver:
    """Appends to the file, each line in one write to the system.

    Lines that a full disk does not take wait in memory and are written with a later one, so that none is lost if
    room is made while the run goes on.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._waiting = b""

    def on_start(self, start: RunStart) -> None:
        """Cut off what a run that was killed had told of steps that are taken anew."""
        assert self._descriptor is not None, "on_start after on_end"
        os.truncate(self._file, _told(self._file, start.steps_done))

    def on_step(self, step: RunStep) -> None:
        """Append the step's line."""
        assert self._descriptor is not None, "on_step after on_end"
        self._waiting += (json.dumps(flat(step), allow_nan=False) + "\n").encode()
        with suppress(OSError):
            self._write(self._descriptor)

    def on_end(self, end: RunEnd) -> None:
        """Write what waits, and close the file.

        :raises OSError: the disk does not take it.
        """
        del end
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                self._write(descriptor)
            finally:
                os.close(descriptor)

    def _write(self, descriptor: int) -> None:
        while self._waiting:
            self._waiting = self._waiting[os.write(descriptor, self._waiting) :]


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
    elif value != "":
        yield name, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else repr(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _told(file: Path, steps: int) -> int:
    """Bytes of the lines that tell of the first `steps` steps; a line that was cut off is none."""
    whole = 0
    with file.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n") or _step(line) > steps:
                break
            whole += len(line)
    return whole


def _step(line: bytes) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return inf


def build(config: None, *, folder: Path) -> JsonlObserver:
    """Open `metrics.jsonl` in the run's folder."""
    del config
    return JsonlObserver(folder / FILE)
