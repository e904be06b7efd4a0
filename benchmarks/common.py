"""What the benchmarks share: the machine and its versions, medians with their spread, results as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
OURS = ("xtuner-core", "xtuner-core-kernels", "xtuner-core-qwen3-moe", "xtuner-core-llama")
DISTRIBUTIONS = (*OURS, "torch", "transformers")
SWITCHES = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "LD_PRELOAD", "MALLOC_ARENA_MAX")
"""Environment variables that decide how fast PyTorch is on a CPU."""


def machine() -> dict[str, Any]:
    """Describe where and with what a figure was taken, the machine's load included."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in DISTRIBUTIONS},
        "environment": {name: os.environ[name] for name in SWITCHES if name in os.environ},
        "commit": _commit(),
    }


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Median, extremes and quartiles, in milliseconds; at least two values."""
    first, median, third = (value * 1e3 for value in statistics.quantiles(seconds, n=4, method="inclusive"))
    return {
        "median_ms": round(median, 2),
        "quartiles_ms": [round(first, 2), round(third, 2)],
        "min_ms": round(min(seconds) * 1e3, 2),
        "max_ms": round(max(seconds) * 1e3, 2),
        "repeats": len(seconds),
    }


def write_result(file: Path, data: Mapping[str, Any]) -> None:
    """Write a result, and say where it lies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    print(f"written: {file}")


def read_result(file: Path) -> dict[str, Any]:
    """Read what an earlier run wrote; nothing where there is none."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def warn_of_load(limit: float = 1.0) -> None:
    """Say that the machine is busy, which spoils every figure."""
    load = os.getloadavg()[0]
    if load > limit:
        print(f"warning: the load of the last minute is {load:.1f}; figures of a busy machine mean little")


def command(*arguments: str) -> list[str]:
    """Build the command `xtuner-core` of this interpreter."""
    return [sys.executable, "-m", "xtuner_core", *arguments]


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit that is checked out, with `+` behind it where files differ; None outside a clone."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()
