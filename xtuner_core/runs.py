"""Runs as their folders tell of them: plan, summary, metrics. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from xtuner_core.errors import DataError, XTunerCoreError
from xtuner_core.plan import Plan

PLAN, SUMMARY, METRICS = "plan.json", "summary.json", "metrics.jsonl"
ALGORITHMS = "metrics."
"""Prefix, in the file, of what the algorithm and the run add to a step; left out here."""
UNFINISHED = "unfinished"
"""Status of a run that has written no summary: it goes on, or was killed."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, read when asked."""

    folder: Path
    plan: Plan
    summary: Mapping[str, Any] = field(default_factory=dict)
    """Of `summary.json`; empty while there is none."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.name

    @property
    def status(self) -> str:
        """`finished`, `stopped`, `failed` or `unfinished`."""
        return str(self.summary.get("status", UNFINISHED))

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Lines of `metrics.jsonl`, in order, without a last one that was cut; of a step taken twice the later one.

        Empty where the run has written none.
        """
        steps = {line.get("step"): line for line in _lines(self.folder / METRICS)}
        return list(steps.values())

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps at which a metric was written, and its values."""
        found = [(line["step"], float(line[metric])) for line in self.metrics if line.get(metric) is not None]
        return [step for step, _ in found], [value for _, value in found]

    def last(self, metric: str) -> float | None:
        """The newest value of a metric."""
        values = (line.get(metric) for line in reversed(self.metrics))
        return next((float(value) for value in values if value is not None), None)

    def pick(self, key: str) -> str:
        """What the run takes for a key, as a person writes it; empty where it takes nothing."""
        pick = self.plan.pick(key)
        if pick is None:
            return ""
        return pick.source or (f"{pick.name}:{pick.preset}" if pick.preset else pick.name)


def read_run(folder: Path | str) -> RunFolder:
    """Read a run's plan and summary.

    :raises ConfigError: the folder is no run's, or its plan cannot be read.
    :raises DataError: its summary is damaged.
    """
    folder = Path(folder)
    return RunFolder(folder, Plan.load(folder), _summary(folder / SUMMARY))


def find_runs(output: Path | str) -> tuple[list[RunFolder], list[XTunerCoreError]]:
    """Every run below a folder, by name, and why some could not be read.

    :raises DataError: there is no such folder.
    """
    output = Path(output)
    if not output.is_dir():
        raise DataError(f"there is no folder {output}", fix="name the folder that runs were written to (output=…)")
    runs: list[RunFolder] = []
    faults: list[XTunerCoreError] = []
    for plan in sorted(output.glob(f"*/{PLAN}")):
        try:
            runs.append(read_run(plan.parent))
        except XTunerCoreError as error:
            faults.append(error)
    return runs, faults


def differing(runs: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """Every decisive value in which the plans of runs differ, by its path; None where a plan has none.

    Plugins are compared by distribution: its version, and the hash of its files where they may change.
    """
    leaves = [_leaves(run.plan) for run in runs]
    keys = dict.fromkeys(key for values in leaves for key in values)
    rows = {key: [values.get(key) for values in leaves] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _leaves(plan: Plan) -> dict[str, Any]:
    values = {key: value for key, value in plan.leaves().items() if not key.startswith("plugins.")}
    for plugin in plan.plugins:
        values[f"distribution.{plugin.distribution}.version"] = plugin.version
        if plugin.content is not None:
            values[f"distribution.{plugin.distribution}.content"] = plugin.content
    return values


def _summary(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}", fix="remove it, the run's metrics stay") from error
    return dict(data)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.exists():
        return
    whole = file.read_text(encoding="utf-8").rpartition("\n")[0]
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            yield {name.removeprefix(ALGORITHMS): value for name, value in json.loads(line).items()}
        except ValueError as error:
            raise DataError(f"{file}:{number} is no JSON: {error}", fix="remove the line") from error
