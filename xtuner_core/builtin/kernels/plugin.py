"""Offers the implementations of operators that the distribution xtuner-core-kernels holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import PluginInfo, Provider, hookimpl

REFERENCE = "plain PyTorch on any device"
CPU = "fast on a CPU"
NATIVE = "in C, where a compiler was there at the installation"

IMPLEMENTATIONS = {
    "adamw.reference": REFERENCE,
    "adamw.cpu": CPU,
    "attention.reference": REFERENCE,
    "attention.cpu": CPU,
    "attention.native": NATIVE,
    "experts.reference": REFERENCE,
    "experts.cpu": CPU,
    "experts.native": NATIVE,
    "log_probs.reference": REFERENCE,
    "log_probs.cpu": CPU,
    "log_probs.native": NATIVE,
    "rms_norm.reference": REFERENCE,
    "rms_norm.cpu": CPU,
    "rms_norm.native": NATIVE,
    "rotary.reference": REFERENCE,
    "rotary.cpu": CPU,
    "rotary.native": NATIVE,
    "router.reference": REFERENCE,
    "swiglu.reference": REFERENCE,
    "swiglu.cpu": CPU,
}
"""`operator.implementation` to what it is; a test compares the list with the distribution's folders."""


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="operators in plain PyTorch, and fast ones for CPUs")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer every implementation."""
    return [
        Provider(slot="operator", name=name, factory=f"xtuner_core_kernels.{name}:IMPLEMENTATION", summary=summary)
        for name, summary in IMPLEMENTATIONS.items()
    ]
