"""A plugin made of records, to pass to a host as an object. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xtuner_core.api import (
    CONTRACT,
    AlgorithmProvider,
    DeviceProvider,
    LossProvider,
    ModelProvider,
    ParallelismProvider,
    PluginInfo,
    Provider,
    hookimpl,
)

_OWN_HOOKS = (ModelProvider, ParallelismProvider, DeviceProvider, LossProvider, AlgorithmProvider)


class FakePlugin:
    """A plugin whose hooks return the records that it was made of."""

    def __init__(self, info: PluginInfo, records: Sequence[Provider[Any]]) -> None:
        self._info = info
        self._records = tuple(records)

    @hookimpl
    def xtuner_plugin(self) -> PluginInfo:
        """Say what this plugin is."""
        return self._info

    @hookimpl
    def xtuner_models(self) -> list[Provider[Any]]:
        """Offer the models among the records."""
        return self._of(ModelProvider)

    @hookimpl
    def xtuner_parallelisms(self) -> list[Provider[Any]]:
        """Offer the strategies among the records."""
        return self._of(ParallelismProvider)

    @hookimpl
    def xtuner_devices(self) -> list[Provider[Any]]:
        """Offer the devices among the records."""
        return self._of(DeviceProvider)

    @hookimpl
    def xtuner_losses(self) -> list[Provider[Any]]:
        """Offer the losses among the records."""
        return self._of(LossProvider)

    @hookimpl
    def xtuner_algorithms(self) -> list[Provider[Any]]:
        """Offer the algorithms among the records."""
        return self._of(AlgorithmProvider)

    @hookimpl
    def xtuner_providers(self) -> list[Provider[Any]]:
        """Offer the other records."""
        return [record for record in self._records if not isinstance(record, _OWN_HOOKS)]

    def _of(self, kind: type[Provider[Any]]) -> list[Provider[Any]]:
        return [record for record in self._records if isinstance(record, kind)]


def fake_plugin(name: str, *records: Provider[Any], info: PluginInfo | None = None) -> FakePlugin:
    """Make a plugin for `Host(objects={name: …})` that offers these records.

    :param info: what it says of itself; None writes a plain one.
    """
    plain = PluginInfo(contract=".".join(map(str, CONTRACT)), summary=f"{name}, made for a test")
    return FakePlugin(plain if info is None else info, records)
