"""Compares the configured dtypes with what a device computes in. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xtuner_core.records import Problem

if TYPE_CHECKING:
    from xtuner_core.contracts.device import DeviceFacts
    from xtuner_core.plan import Plan

WORDS = {"float64": "dtype.fp64", "float32": "dtype.fp32", "bfloat16": "dtype.bf16"}


def missing_dtypes(plan: Plan, facts: DeviceFacts | None) -> Iterator[Problem]:
    """Yield a problem for each dtype of the run's precision that the device lacks; none without facts."""
    picked = plan.pick("precision")
    if facts is None or picked is None or picked.plugin != "precision":
        return
    for key in ("parameter", "compute", "reduction", "state"):
        value = plan.config["precision"][key]
        if WORDS[value] not in facts.capabilities:
            reason = facts.lacks.get(WORDS[value], f"{facts.chip} does not compute in {value}")
            yield Problem(
                message=f"precision.{key} is {value}, which this device lacks: {reason}",
                fix=f"set precision.{key} to another dtype",
                code="requirement",
                key=f"precision.{key}",
                plugins=("precision",),
            )
