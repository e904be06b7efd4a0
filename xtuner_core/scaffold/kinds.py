"""What a new plugin of each slot consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The files of one slot, and how its record is written."""

    component: str
    """Module that holds the component."""
    factory: str
    """What the record's `factory` names in it; `{title}` is the plugin's name in capitals and small letters."""
    record: str = "Provider"
    """Class of the record."""
    hook: str = "xtuner_providers"
    """Hook that offers it."""
    configured: bool = True
    """Whether there is a configuration dataclass, `config.py`."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Further fields of the record, as source; `{package}` and `{name}` are filled in."""
    extra_files: tuple[str, ...] = ()
    """Modules beside the component."""
    index: tuple[str, ...] = ("{slot}/{name}",)
    """Keys of the offers index."""


KINDS: Mapping[str, Kind] = {
    "model": Kind(
        component="model",
        factory="build",
        record="ModelProvider",
        hook="xtuner_models",
        fields={"hf_model_types": '("{name}",)', "presets": "(TINY,)"},
        index=("hf/{name}", "model/{name}"),
    ),
    "device": Kind(
        component="device",
        factory="{title}",
        record="DeviceProvider",
        hook="xtuner_devices",
        configured=False,
        fields={
            "probe": '"{package}.probe:probe"',
            "accelerator": "False",
            "precision": '"fp32"',
            "provides": 'frozenset({{"dtype.fp64", "dtype.fp32"}})',
        },
        extra_files=("probe",),
    ),
    "loss": Kind(component="loss", factory="{title}", record="LossProvider", hook="xtuner_losses"),
    "algorithm": Kind(
        component="algorithm",
        factory="{title}",
        record="AlgorithmProvider",
        hook="xtuner_algorithms",
        fields={"loss": '"cross_entropy"'},
    ),
    "parallelism": Kind(
        component="strategy",
        factory="{title}",
        record="ParallelismProvider",
        hook="xtuner_parallelisms",
        fields={"stage": '"recomputation"'},
    ),
    "precision": Kind(component="precision", factory="{title}", configured=False),
    "optimizer": Kind(component="optimizer", factory="{title}"),
    "schedule": Kind(component="schedule", factory="build"),
    "dataset": Kind(
        component="dataset",
        factory="open_corpus",
        record="DatasetProvider",
        fields={"suffixes": '(".{name}",)'},
        index=("dataset/{name}", "file/{name}"),
    ),
    "dispatcher": Kind(component="dispatcher", factory="{title}", configured=False),
    "launcher": Kind(
        component="launcher",
        factory="{title}",
        record="LauncherProvider",
        configured=False,
        fields={"world": '"{package}.world:world"'},
        extra_files=("world",),
    ),
    "observer": Kind(component="observer", factory="{title}"),
    "operator": Kind(component="operator", factory="IMPLEMENTATION", configured=False, index=()),
}
"""Slot to the plugin that `new-plugin` writes for it; the other slots have no contract yet."""
