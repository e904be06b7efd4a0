"""The plugin author's kit: a contract suite a slot, and what they are made of. Nothing here runs in a training run.

A suite is a class of pytest tests that a plugin subclasses in a few lines; its bases are not collected, because
their names do not begin with `Test`:

    from xtuner_core.testing import ModelContract

    class TestMyModel(ModelContract):
        plugin = "my_plugin"
        configs = ({"hidden_size": 32, "num_layers": 2},)

Everything is imported on first use: neither pytest nor torch is needed to pass `imaginary` to a `Host`.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xtuner_core.testing import imaginary, latent, tiny
    from xtuner_core.testing.algorithm import AlgorithmContract
    from xtuner_core.testing.build import build_model, model_config
    from xtuner_core.testing.dataset import DatasetContract
    from xtuner_core.testing.device import DeviceContract
    from xtuner_core.testing.dispatcher import DispatcherContract
    from xtuner_core.testing.documents import PACKINGS, random_documents
    from xtuner_core.testing.fake_engine import FakeEngine
    from xtuner_core.testing.fakes import fake_plugin
    from xtuner_core.testing.launcher import LauncherContract
    from xtuner_core.testing.loss import LossContract
    from xtuner_core.testing.model import ModelContract
    from xtuner_core.testing.observer import ObserverContract
    from xtuner_core.testing.operator import OperatorCase, OperatorContract
    from xtuner_core.testing.optimizer import OptimizerContract
    from xtuner_core.testing.parallelism import ParallelismSmoke
    from xtuner_core.testing.plugin import PluginContract
    from xtuner_core.testing.precision import PrecisionContract
    from xtuner_core.testing.reference import ReferencedModelContract
    from xtuner_core.testing.schedule import ScheduleContract
    from xtuner_core.testing.tiny_run import compose_tiny, tiny_host

_HOMES = {
    "AlgorithmContract": "algorithm",
    "DatasetContract": "dataset",
    "DeviceContract": "device",
    "DispatcherContract": "dispatcher",
    "FakeEngine": "fake_engine",
    "LauncherContract": "launcher",
    "LossContract": "loss",
    "ModelContract": "model",
    "ObserverContract": "observer",
    "OperatorCase": "operator",
    "OperatorContract": "operator",
    "OptimizerContract": "optimizer",
    "PACKINGS": "documents",
    "ParallelismSmoke": "parallelism",
    "PluginContract": "plugin",
    "PrecisionContract": "precision",
    "ReferencedModelContract": "reference",
    "ScheduleContract": "schedule",
    "build_model": "build",
    "compose_tiny": "tiny_run",
    "fake_plugin": "fakes",
    "model_config": "build",
    "random_documents": "documents",
    "tiny_host": "tiny_run",
}
_PLUGINS = ("imaginary", "latent", "tiny")
"""Plugin modules, passed to a host as objects."""


def __getattr__(name: str) -> object:
    if name in _PLUGINS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"{__name__}.{_HOMES[name]}"
    if name.endswith(("Contract", "Smoke")) and module not in sys.modules:
        import pytest

        # So that a suite's assertions show their values, as those of a test module do.
        pytest.register_assert_rewrite(module)
    return getattr(importlib.import_module(module), name)


__all__ = [
    "PACKINGS",
    "AlgorithmContract",
    "DatasetContract",
    "DeviceContract",
    "DispatcherContract",
    "FakeEngine",
    "LauncherContract",
    "LossContract",
    "ModelContract",
    "ObserverContract",
    "OperatorCase",
    "OperatorContract",
    "OptimizerContract",
    "ParallelismSmoke",
    "PluginContract",
    "PrecisionContract",
    "ReferencedModelContract",
    "ScheduleContract",
    "build_model",
    "compose_tiny",
    "fake_plugin",
    "imaginary",
    "latent",
    "model_config",
    "random_documents",
    "tiny",
    "tiny_host",
]
