"""Every setting that changes how a run is spread or computed, and all pairs of them, as trainings on two ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "replicas alone": {},
    "fsdp": {"parallelism": {"fsdp": {}}},
    "fsdp, replicas": {"parallelism": {"fsdp": {"replicate": 2}}},
    "fsdp, never resharded": {"parallelism": {"fsdp": {"reshard_after_forward": "never"}}},
    "fsdp, reduced each micro-batch": {"parallelism": {"fsdp": {"reduce": "micro_batch"}}},
    "fsdp, offloaded": {"parallelism": {"fsdp": {"offload": True}}},
    "experts, all-to-all": {"parallelism": {"expert_parallel": {"size": 2}}},
    "experts, naive": {"parallelism": {"expert_parallel": {"size": 2, "dispatcher": "naive"}}},
    "experts, in rounds": {"parallelism": {"expert_parallel": {"size": 2, "imbalance": 0.5}}},
    "ulysses": {"parallelism": {"ulysses": {"size": 2}}},
    "recomputed layers": {"parallelism": {"recompute": {}}},
    "recomputed but products": {"parallelism": {"recompute": {"keep": "products"}}},
    "recomputed, inputs offloaded": {"parallelism": {"recompute": {"offload": True}}},
    "float32": {"precision": {"name": "fp32"}},
    "bf16": {"precision": {"name": "bf16"}},
    "bf16 parameters": {"precision": {"name": "bf16", "parameter": "bfloat16", "state": "bfloat16"}},
    "muon": {"optimizer": "muon"},
    "document mean": {"loss": {"name": "cross_entropy", "reduction": "document"}},
    "no clipping": {"engine": {"clip_norm": None}},
    "frozen embedding": {"parameters": [{"role": "embed", "frozen": True}]},
}
"""By name, what a training has beside the tiny run's; float64 where no precision is said."""


def pairs() -> Iterator[tuple[str, str]]:
    """All pairs of settings that do not set one thing twice."""
    for one, other in combinations(SETTINGS, 2):
        if not _contradict(SETTINGS[one], SETTINGS[other]):
            yield one, other


def merged(one: str, other: str) -> dict[str, Any]:
    """Both settings at once."""
    return _merge(SETTINGS[one], SETTINGS[other])


def bound(settings: Mapping[str, Any]) -> float:
    """How far apart two trainings in the precision of these settings may be: a few roundings of its narrowest dtype."""
    precision = settings.get("precision", {"name": "fp64"})
    return {"fp64": 1e-9, "fp32": 1e-4}.get(precision["name"], 5e-2)


def _contradict(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return any(
        not (key == "parallelism" and not one[key].keys() & other[key].keys()) for key in one.keys() & other.keys()
    )


def _merge(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {**one, **other}
    if "parallelism" in one and "parallelism" in other:
        both["parallelism"] = {**one["parallelism"], **other["parallelism"]}
    return both
