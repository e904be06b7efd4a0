"""Compares the configured offload with what the device can do. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xtuner_core.records import Problem

if TYPE_CHECKING:
    from xtuner_core.contracts.device import DeviceFacts
    from xtuner_core.plan import Plan

OFFLOAD = "memory.offload"
"""Capability of a device that is a `contracts.device.Offloading`."""


def offloads_refused(plan: Plan, facts: DeviceFacts | None) -> Iterator[Problem]:
    """Yield a problem for each pick that offloads on a device without the capability; none without facts."""
    if facts is None or OFFLOAD in facts.capabilities:
        return
    reason = facts.lacks.get(OFFLOAD, f"{facts.chip} does not say that it can")
    for pick in plan.picked("parallelism"):
        name = pick.key.partition(".")[2]
        if pick.plugin == "recompute" and plan.config["parallelism"][name]["offload"]:
            yield Problem(
                message=f"{pick.key}.offload keeps inputs in host memory, which this device lacks: {reason}",
                fix=f"set {pick.key}.offload to false",
                code="requirement",
                key=f"{pick.key}.offload",
                plugins=("recompute",),
            )
