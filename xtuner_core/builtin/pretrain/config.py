"""Configuration of the algorithm pretrain."""

from __future__ import annotations

from dataclasses import dataclass, field

from xtuner_core.data.settings import SupervisedConfig


@dataclass(kw_only=True)
class PretrainConfig(SupervisedConfig):
    """Next-token prediction on plain text."""

    compare_xz: bool = False
    """Whether `xz -9e` compresses the same held-out text given the training text (seconds for megabytes)."""
    sample_prompts: list[str] = field(default_factory=list)
    """Beginnings of documents that the model continues with each evaluation."""
    shuffle_targets: bool = False
    """Control experiment: trains on labels permuted within each piece, so that there is nothing to learn but
    how often tokens occur."""
