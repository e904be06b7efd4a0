"""A host and a composition of a run that takes a second: the model `tiny` on `tiny_texts`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xtuner_core.composition import Composition, compose
from xtuner_core.host import Host
from xtuner_core.testing import tiny

RECIPE: Mapping[str, Any] = {
    "model": "tiny",
    "dataset": "tiny_texts",
    "device": "cpu",
    "precision": "fp32",
    "loss": "cross_entropy",
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "schedule": "constant",
    "observer": {"console": None, "jsonl": {}},
    "algorithm": {
        "name": "pretrain",
        "steps": 2,
        "tokens_per_step": 256,
        "micro_batch_tokens": 128,
        "document_tokens": 64,
    },
}
"""What `compose_tiny` starts from."""


def tiny_host(plugins: Sequence[str] = (), *, objects: Mapping[str, object] | None = None) -> Host:
    """Make a host that holds `tiny` beside these plugins.

    :param plugins: names of installed plugins.
    :param objects: further plugins passed as objects.
    """
    return Host(plugins, objects={"tiny": tiny, **(objects or {})})


def compose_tiny(overrides: Mapping[str, Any] | None = None, *, host: Host | None = None) -> Composition:
    """Compose a run of two steps, with a few things of it changed.

    :param overrides: picks and configuration: `{"device": "mine", "algorithm": {"steps": 1}}`.
    :param host: one of `tiny_host`; None makes a plain one.
    """
    return compose(RECIPE, overrides=overrides or (), host=tiny_host() if host is None else host)
