"""All that a plugin's entry module imports. Imports no torch."""

from __future__ import annotations

from xtuner_core.config.pick import pick
from xtuner_core.errors import XTunerCoreError
from xtuner_core.hookspecs import CONTRACT, hookimpl
from xtuner_core.records import (
    AlgorithmProvider,
    Command,
    DatasetProvider,
    DeviceProvider,
    Dimension,
    Hint,
    Lack,
    LauncherProvider,
    LossProvider,
    ModelProvider,
    ParallelismProvider,
    Patch,
    PluginInfo,
    Preset,
    Problem,
    Provider,
    Recipe,
)

__all__ = [
    "CONTRACT",
    "AlgorithmProvider",
    "Command",
    "DatasetProvider",
    "DeviceProvider",
    "Dimension",
    "Hint",
    "Lack",
    "LauncherProvider",
    "LossProvider",
    "ModelProvider",
    "ParallelismProvider",
    "Patch",
    "PluginInfo",
    "Preset",
    "Problem",
    "Provider",
    "Recipe",
    "XTunerCoreError",
    "hookimpl",
    "pick",
]
