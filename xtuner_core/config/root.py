"""The core's own settings; everything else belongs to a component and is mounted under its slot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from xtuner_core.config.layer_ranges import LayerRanges


@dataclass(kw_only=True)
class EngineConfig:
    """The machinery that every algorithm shares."""

    clip_norm: float | None = 1.0
    """Largest norm of the whole gradient; null clips nothing."""
    non_finite: Literal["skip", "fail"] = "skip"
    """What a step with a non-finite loss or gradient does; either way no weight changes by it."""
    max_skipped: int = 20
    """Skipped steps in a row that end the run as failed."""

    def __post_init__(self) -> None:
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive or null, not {self.clip_norm}")
        if self.max_skipped < 1:
            raise ValueError(f"max_skipped must be at least 1, not {self.max_skipped}")


@dataclass(kw_only=True)
class ParameterRule:
    """What is different for the parameters of a role; of several rules that match, each setting's last one counts."""

    role: str
    """Role, everything below it included: `embed`, `moe.experts`; `layer` means all that lies in layers."""
    layers: str | None = None
    """Layers from 0, `0-3,8,20-`; null means all, and parameters outside the layers too."""
    learning_rate_factor: float | None = None
    """Multiplies the learning rate."""
    weight_decay: float | None = None
    """Replaces the optimizer's."""
    frozen: bool | None = None
    """Whether these keep their values, bit for bit."""

    def check(self) -> None:
        """Refuse what can mean nothing, whatever the model.

        :raises ValueError: says what.
        """
        for name in ("learning_rate_factor", "weight_decay"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, not {value}")
        if self.layers is not None:
            LayerRanges.parse(self.layers)
        changes = self.learning_rate_factor is not None or self.weight_decay is not None
        if self.frozen is None and not changes:
            raise ValueError("it sets nothing; give learning_rate_factor, weight_decay or frozen")
        if self.frozen and changes:
            raise ValueError("frozen parameters have neither learning rate nor weight decay; take those out")


@dataclass(kw_only=True)
class DataConfig:
    """Reading, tokenising, mixing and packing, whatever the algorithm."""

    workers: int | None = None
    """Processes that tokenise; null takes one for each processor core, and none for little data."""
    cache: str | None = None
    """Folder of tokenised data, shared by all runs; null takes `.cache` in `output`."""
    over_budget: Literal["split", "truncate", "refuse"] = "split"
    """What happens to a document of more tokens than the algorithm's `document_tokens`; it is counted."""
    broken: Literal["refuse", "skip"] = "refuse"
    """What happens to a record that cannot be read or rendered; it is named, or counted and the first are named."""
    weights: dict[str, float] = field(default_factory=dict)
    """Share of the training tokens by dataset (the name of its entry), in any unit; empty takes each dataset as
    often as `epochs` says."""
    epochs: dict[str, float] = field(default_factory=dict)
    """How often a dataset is read in one epoch of the whole, 1 where it is not named; not beside `weights`."""
    shuffle: bool = True
    """Whether documents come in a seeded order, new each epoch."""
    window: int = 4096
    """Documents that are packed together: more fill better, fewer keep the shuffled order closer."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must not be negative, not {self.workers}")
        if self.window < 1:
            raise ValueError(f"window must be at least 1, not {self.window}")
        if self.weights and self.epochs:
            raise ValueError("weights and epochs exclude each other; keep one")
        for name, value in {**self.weights, **self.epochs}.items():
            if not value > 0:
                raise ValueError(f"weights and epochs must be positive, not {value} for {name}; leave the dataset out")


@dataclass(kw_only=True)
class CheckpointConfig:
    """What is saved so that a run can go on."""

    every_steps: int | None = None
    """Steps between two checkpoints; null saves by time only."""
    every_seconds: float | None = 900.0
    """Seconds between two checkpoints; null saves by steps only."""
    keep_last: int = 2
    """Newest checkpoints that are kept; at least 1."""
    keep_best: int = 1
    """Best checkpoints that are kept beside them, by `best.metric`."""
    at_end: bool = False
    """Whether a finished run leaves a checkpoint too; one that is stopped always does."""
    asynchronous: bool = False
    """Whether steps go on while a checkpoint is written, from a copy of weights and optimizer states in host memory;
    off, because that memory is taken for good."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "every_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive or null, not {value}")
        if self.keep_last < 1 or self.keep_best < 0:
            raise ValueError("keep_last must be at least 1 and keep_best at least 0")


@dataclass(kw_only=True)
class BestConfig:
    """By what one checkpoint is better than another, and when a run stops improving."""

    metric: str = "held_out.loss"
    """A metric that the algorithm's evaluation gives."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of it is better."""
    patience: int | None = None
    """Evaluations without improvement after which the run ends early; null never does."""
    min_delta: float = 0.0
    """What counts as an improvement, at least, in the metric's unit."""

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1 or null, not {self.patience}")
        if self.min_delta < 0:
            raise ValueError(f"min_delta must not be negative, not {self.min_delta}")


@dataclass(kw_only=True)
class ProfileConfig:
    """Looks inside one step; written to `profile` in the run's folder."""

    trace_step: int | None = None
    """Step of which a trace is written (Chrome and Perfetto read it)."""
    memory_step: int | None = None
    """Step of which a memory snapshot is written; refused on a device that keeps no record of its memory."""

    def __post_init__(self) -> None:
        for name in ("trace_step", "memory_step"):
            step = getattr(self, name)
            if step is not None and step < 1:
                raise ValueError(f"{name} must be at least 1 or null, not {step}")


@dataclass(kw_only=True)
class ExportConfig:
    """The Hugging Face folder that a finished run leaves."""

    enabled: bool = True
    """Whether it is written at the end, to `export` in the run's folder."""
    best: bool = False
    """Whether the best checkpoint's weights are exported instead of the last ones."""
    shard_bytes: int = 5_000_000_000
    """Largest size of one safetensors file."""

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise ValueError(f"shard_bytes must be positive, not {self.shard_bytes}")


@dataclass(kw_only=True)
class RanksConfig:
    """A run over several ranks."""

    timeout_seconds: float = 600.0
    """After so long without progress a run counts as hung, and ends with the stacks of its ranks."""

    def __post_init__(self) -> None:
        if self.timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be positive, not {self.timeout_seconds}")


@dataclass(kw_only=True)
class CoreConfig:
    """Settings of the run itself."""

    seed: int = 0
    """Seeds initialisation, data order and sampling."""
    deterministic: bool | None = None
    """Same seed, plan and hardware give the same bits; null leaves it to the device (true on a CPU)."""
    output: str = "runs"
    """Folder in which each run makes a folder of its own."""
    init: str | None = None
    """Run or Hugging Face folder whose weights the run starts from, and nothing else of it; without a `model`, its
    model is taken too."""
    tokenizer: str = "auto"
    """Folder of a tokenizer.json; `auto` takes the model path's, else the dataset's."""
    time_limit_seconds: float | None = None
    """Wall time after which the run saves a checkpoint and leaves to be resumed; null sets none."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    parameters: list[ParameterRule] = field(default_factory=list)
    """Learning rate, weight decay and freezing by role and layer."""
    data: DataConfig = field(default_factory=DataConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    best: BestConfig = field(default_factory=BestConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    ranks: RanksConfig = field(default_factory=RanksConfig)

    def __post_init__(self) -> None:
        if self.time_limit_seconds is not None and self.time_limit_seconds <= 0:
            raise ValueError(f"time_limit_seconds must be positive or null, not {self.time_limit_seconds}")
        if self.export.best and not self.checkpoint.keep_best:
            raise ValueError("export.best exports the best checkpoint, and checkpoint.keep_best=0 keeps none")
        for number, rule in enumerate(self.parameters):
            try:
                rule.check()
            except ValueError as error:
                raise ValueError(f"parameters[{number}]: {error}") from error
