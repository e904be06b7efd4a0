"""Offers the precisions fp32 and bf16."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xtuner_core.api import PluginInfo, Problem, Provider, hookimpl
from xtuner_core.builtin.precision.check import missing_dtypes

if TYPE_CHECKING:
    from xtuner_core.contracts.device import DeviceFacts
    from xtuner_core.plan import Plan

FP32: Provider[Any] = Provider(
    slot="precision",
    name="fp32",
    factory="xtuner_core.builtin.precision.plain:build",
    config="xtuner_core.builtin.precision.config:Fp32Config",
    requires=frozenset({"dtype.fp32"}),
    summary="everything in float32; each of the four dtypes can be set",
)
BF16: Provider[Any] = Provider(
    slot="precision",
    name="bf16",
    factory="xtuner_core.builtin.precision.plain:build",
    config="xtuner_core.builtin.precision.config:Bf16Config",
    requires=frozenset({"dtype.bf16"}),
    summary="computes in bfloat16 with float32 master weights, gradient sums and optimizer states",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="plain dtypes: float32, and bfloat16 with master weights")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer both precisions."""
    return [FP32, BF16]


@hookimpl
def xtuner_check(plan: Plan, facts: DeviceFacts | None) -> Iterable[Problem]:
    """Refuse dtypes that this rank's device does not compute in; what a record requires is only its usual ones."""
    return missing_dtypes(plan, facts)
