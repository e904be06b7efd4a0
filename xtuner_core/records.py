"""The records that hooks return: plain data that the core indexes, compares and blames.

No torch here, nor in any module that a plugin's entry module imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Literal, TypeVar

Config = TypeVar("Config")

SINGLE_SLOTS = {
    "model": "what is trained",
    "device": "where it runs",
    "loss": "per-token log-probabilities and the batch's fields to a scalar",
    "algorithm": "the source of global batches and what follows a step",
    "precision": "dtypes of parameters, computation, reduction and states; module replacement by role",
    "optimizer": "updates the parameters",
    "schedule": "learning rate over the steps",
    "adapter": "small trainable weights beside frozen ones",
    "dispatcher": "brings tokens to experts on other ranks and back",
    "rollout": "generates trajectories",
    "launcher": "starts the ranks",
}
"""Slots of which a run picks one at most."""

INHERITED_SLOTS = frozenset({"dispatcher"})
"""Single slots from which only other components take: what the run picks is what they have where they name none."""

MANY_SLOTS = {
    "parallelism": "spreads the work over ranks",
    "dataset": "where texts come from",
    "judger": "scores trajectories",
    "environment": "what an agent acts in",
    "observer": "is told what happens",
}
"""Slots of which a run picks any number, each under a name."""

UNPICKED_SLOTS = {"operator": "implementations of the operators of `kernels`; bound by use, pinned under `operator`"}
"""Slots whose offers are all considered and never picked."""

SLOTS = {**SINGLE_SLOTS, **MANY_SLOTS, **UNPICKED_SLOTS}
"""Slot to what it is for."""

RESERVED_SLOTS = frozenset({"adapter", "rollout", "judger", "environment"})
"""Slots whose contract comes with their first provider; the names are kept for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe that a plugin ships by name."""

    name: str
    file: str
    """`"package:path/below/it.yaml"`."""
    summary: str
    default: bool = False
    """Whether a run starts from it when neither a recipe nor an algorithm is named; one built-in recipe is.
    Where it is an algorithm's `demo`, who names a model, `init` or a dataset starts from that algorithm's `recipe`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """What a plugin says of itself."""

    contract: str
    """Version of the contract that it was written for, `"1.0"`."""
    summary: str
    requires_plugins: tuple[str, ...] = ()
    """Plugins that are activated with it."""
    settings: type | str | None = None
    """Dataclass, or `"package.module:Class"`, mounted at `plugins.<name>`."""
    recipes: tuple[Recipe, ...] = ()
    capabilities: Mapping[str, str] = field(default_factory=dict)
    """Private capability words, each beginning with the plugin's name and a dot, and what they mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Named values of a provider's configuration."""

    name: str
    """Unique in its provider; `model=qwen3_moe:30b-a3b`."""
    alias: str | None = None
    """Name that stands for provider and preset at once; `model=qwen3-30b-a3b`."""
    summary: str = ""
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Why a provider is without a capability, and what to do instead."""

    reason: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider(Generic[Config]):
    """One offer."""

    slot: str
    name: str
    """Lower snake case, unique in its slot among the active plugins."""
    factory: str
    """`"package.module:function"`, imported only when picked; its signature is in the slot's contract."""
    config: type[Config] | str | None = None
    """Configuration dataclass, or `"package.module:Class"` in a module that imports no torch."""
    presets: tuple[Preset, ...] = ()
    provides: frozenset[str] = frozenset()
    requires: frozenset[str] = frozenset()
    lacks: Mapping[str, Lack] = field(default_factory=dict)
    summary: str
    depends_on_split: str | Mapping[str, str] | None = None
    """Why results depend on how the work is split, where they do; the plan prints it. Where only some settings make
    it so, a mapping from `"field=value"` to the reason."""

    def split_reasons(self, values: Mapping[str, Any]) -> list[str]:
        """Why results depend on the split of the work with these values of its configuration, if they do."""
        if self.depends_on_split is None or isinstance(self.depends_on_split, str):
            return [self.depends_on_split] if self.depends_on_split else []
        given = {f"{name}={value}" for name, value in values.items()}
        return [f"{setting}: {reason}" for setting, reason in self.depends_on_split.items() if setting in given]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProvider(Provider[Config]):
    """A model family. Its configuration class is a `contracts.model.ModelConfig`."""

    slot: str = "model"
    hf_model_types: tuple[str, ...] = ()
    """Values of `model_type` in a `config.json` that it reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """A dimension of a view of the ranks (`xtuner_core.views`)."""

    name: str
    """`"dense.shard"`, `"expert.parallel"`, a word of the strategy's own below `dense` or `expert`; `"replicate"` is
    common to both views."""
    size: str
    """Field of the strategy's configuration that says how many ranks it has; `"auto"` there leaves it to the core."""
    work: Literal["documents", "tokens", "same", "parts"] = "documents"
    """What the ranks along it are given: other documents; other tokens of the same ones; the same tokens, of which each
    finds the same (tensor parallelism); or the same tokens, of which each finds a part, and the parts add up (stages
    of a pipeline)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelismProvider(Provider[Config]):
    """A strategy and its place among the others."""

    slot: str = "parallelism"
    dimensions: tuple[Dimension, ...] = ()
    """Dimensions that it owns; no two strategies of a run own the same."""
    stage: str = "data"
    """One of `STAGES`, or a name of its own placed by `before` and `after`."""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    schedule: bool = False
    """Whether it drives forward and backward over micro-batches; one at most does."""


STAGES = ("adapters", "precision", "experts", "sequence", "recomputation", "compilation", "data")
"""Order in which strategies are applied to a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProvider(Provider[Config]):
    """A kind of device."""

    slot: str = "device"
    probe: str
    """`"package.module:function"` -> `contracts.device.Probe`-like (count, reason); imports no torch."""
    accelerator: bool = True
    """Whether `device=auto` prefers it to one that is not."""
    precision: str = "bf16"
    """What `precision=auto` means on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherProvider(Provider[Config]):
    """A way to start the ranks."""

    slot: str = "launcher"
    world: str
    """`"package.module:function"` -> how many ranks there are, called with the configuration; imports no torch."""
    detect: str | None = None
    """`"package.module:function"` -> whether this process was started by it as a rank; then it is what a run takes that
    picks no launcher. Imports no torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossProvider(Provider[Config]):
    """A loss."""

    slot: str = "loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmProvider(Provider[Config]):
    """An algorithm."""

    slot: str = "algorithm"
    loss: str
    """The loss that it takes where the run picks none."""
    recipe: str | None = None
    """Recipe of its plugin that a run without a recipe starts from."""
    demo: str | None = None
    """Recipe of its plugin that a run starts from in place of `recipe` where the user names no recipe, model, `init` or
    dataset: one that brings all of these along, small enough for a laptop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetProvider(Provider[Config]):
    """A kind of dataset."""

    slot: str = "dataset"
    suffixes: tuple[str, ...] = ()
    """Endings of files that it reads (`.jsonl`, `.jsonl.gz`): `dataset=FILE` finds it by them, and sets the field
    `path` of its configuration. The offers index lists each as `file/jsonl.gz`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that a plugin adds: `xtuner-core NAME …`."""

    name: str
    summary: str
    target: str
    """`"package.module:command"`, a click command."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A value that a plugin sets between the recipe and the command line."""

    path: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a run cannot be wired."""

    message: str
    """One sentence: what, and where."""
    fix: str = ""
    code: str = "check"
    """Stable word for machines: `unknown_key`, `conflict`, `requirement` …"""
    key: str | None = None
    """Configuration key concerned."""
    plugins: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}" if self.fix else self.message

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class Hint:
    """A line that a plugin adds to an error that it recognises."""

    text: str
