"""Real ranks for a test: processes on this host that meet over gloo, each running one function on plain data."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

PAYLOAD, STORE = "payload.json", "store"
GRACE = 5.0
"""Seconds that the other ranks have to end by themselves once one has failed."""


def run_ranks(count: int, target: str, payload: Any = None, *, timeout: float = 120.0) -> list[Any]:
    """Call a function on so many ranks, each in a process of its own with a gloo group over all of them.

    Starting takes some three seconds, so let one call work through many cases.

    :param target: `"module:function"`, or `"/path/to/file.py:function"`; called with `payload`.
    :param payload: plain data.
    :param timeout: seconds after which the ranks are killed.
    :return: what the function returned on each rank, as plain data.
    :raises AssertionError: a rank failed or did not end; with what each of them wrote.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / PAYLOAD).write_text(json.dumps(payload))
        ranks = [_start(folder, rank, count, target) for rank in range(count)]
        try:
            _wait(ranks, timeout)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
        codes = [rank.returncode for rank in ranks]
        assert not any(codes), f"{target} on {count} ranks ended with {codes}:\n{_written(folder, count)}"
        return [json.loads(_file(folder, rank, "json").read_text()) for rank in range(count)]


def _start(folder: Path, rank: int, count: int, target: str) -> subprocess.Popen[bytes]:
    code = f"from xtuner_core.testing.ranks import serve; serve({str(folder)!r}, {rank}, {count}, {target!r})"
    path = os.pathsep.join(each for each in sys.path if each)
    settings = ["GLOO_SOCKET_IFNAME=lo", "OMP_NUM_THREADS=1", f"PYTHONPATH={path}"]
    with _file(folder, rank, "log").open("wb") as log:
        return subprocess.Popen(["env", *settings, sys.executable, "-c", code], stdout=log, stderr=log)


def _wait(ranks: Sequence[subprocess.Popen[bytes]], timeout: float) -> None:
    """Until all have ended, one has failed and the others had their grace, or time is up."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and any(rank.poll() is None for rank in ranks):
        if any(rank.returncode for rank in ranks):
            end = min(end, time.monotonic() + GRACE)
        time.sleep(0.02)


def _written(folder: Path, count: int) -> str:
    logs = [_file(folder, rank, "log").read_text(errors="replace")[-4000:] for rank in range(count)]
    return "\n".join(f"--- rank {rank}\n{log}" for rank, log in enumerate(logs))


def _file(folder: Path, rank: int, kind: str) -> Path:
    return folder / f"rank{rank}.{kind}"


def serve(folder: str, rank: int, count: int, target: str) -> None:
    """Be one rank: join the group, call the function, leave its answer in the folder."""
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import FileStore

    torch.set_num_threads(1)
    store = FileStore(str(Path(folder) / STORE), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=timedelta(seconds=60))
    answer = _load(target)(json.loads((Path(folder) / PAYLOAD).read_text()))
    _file(Path(folder), rank, "json").write_text(json.dumps(answer))
    dist.barrier()
    dist.destroy_process_group()


def _load(target: str) -> Callable[[Any], Any]:
    home, _, name = target.rpartition(":")
    if not home.endswith(".py"):
        return getattr(importlib.import_module(home), name)  # type: ignore[no-any-return]
    spec = importlib.util.spec_from_file_location(Path(home).stem, home)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As an import does; dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, name)  # type: ignore[no-any-return]
