"""The core's own settings; everything else belongs to a component and is mounted under its slot."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class EngineConfig:
    """The machinery that every algorithm shares."""

    clip_norm: float | None = 1.0
    """Largest norm of the whole gradient; null clips nothing."""

    def __post_init__(self) -> None:
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive or null, not {self.clip_norm}")


@dataclass(kw_only=True)
class ExportConfig:
    """The Hugging Face folder that a finished run leaves."""

    enabled: bool = True
    """Whether it is written at the end, to `export` in the run's folder."""
    shard_bytes: int = 5_000_000_000
    """Largest size of one safetensors file."""

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise ValueError(f"shard_bytes must be positive, not {self.shard_bytes}")


@dataclass(kw_only=True)
class CoreConfig:
    """Settings of the run itself."""

    seed: int = 0
    """Seeds initialisation, data order and sampling."""
    deterministic: bool | None = None
    """Same seed, plan and hardware give the same bits; null leaves it to the device (true on a CPU)."""
    output: str = "runs"
    """Folder in which each run makes a folder of its own."""
    tokenizer: str = "auto"
    """Folder of a tokenizer.json; `auto` takes the model path's, else the dataset's."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
