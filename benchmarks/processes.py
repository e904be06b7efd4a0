"""Runs of the command in processes of their own, forked from one that has imported everything and computed nothing.

They start within a tenth of a second and are killed as any process is.
The client half (`Server`, `Process`) is for scripts and tests; `python processes.py` is the server half.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

import yaml

ENTRY_POINTS = """
[xtuner_core.plugins]
tiny = xtuner_core.testing.tiny
[xtuner_core.offers]
model/tiny = xtuner_core.testing.tiny
hf/xtuner_core_tiny = xtuner_core.testing.tiny
dataset/tiny_texts = xtuner_core.testing.tiny
"""
"""What makes the kit's plugin `tiny` an installed one."""


@dataclass(frozen=True)
class Process:
    """A command that was started."""

    server: Server
    pid: int
    files: Path

    def poll(self) -> int | None:
        """Its exit code, negative where a signal ended it; None while it runs."""
        return self.server.ask({"poll": self.pid})["code"]

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for its exit code."""
        end = monotonic() + seconds
        while (code := self.poll()) is None:
            assert monotonic() < end, f"it runs for more than {seconds} s:\n{self.complained}"
            sleep(0.005)
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    @property
    def said(self) -> str:
        """What it wrote to standard output."""
        return (self.files / "out").read_text()

    @property
    def complained(self) -> str:
        """What it wrote to standard error."""
        return (self.files / "err").read_text()


class Server:
    """Starts commands of `xtuner-core`, which find the plugin `tiny` beside what is installed."""

    def __enter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory()
        site = Path(self._home.name) / "site"
        info = site / "xtuner_core_tiny-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: xtuner-core-tiny\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(ENTRY_POINTS)
        self.site = site
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        self._server.stdout.readline()  # it is ready
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)
        assert self._server.stdout is not None
        self._server.stdout.close()
        self._home.cleanup()

    def start(self, arguments: Sequence[str], folder: Path) -> Process:
        """Start `xtuner-core ARGUMENTS` in a folder."""
        self._count += 1
        files = Path(self._home.name) / str(self._count)
        files.mkdir()
        told = self.ask({"arguments": list(arguments), "folder": str(folder), "files": str(files)})
        return Process(self, told["pid"], files)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request to the server half."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


def tiny_recipe(file: Path, changes: Mapping[str, Any]) -> Path:
    """Write the recipe of the kit's tiny run, with a few things of it changed.

    :param changes: of the algorithm's values.
    """
    from xtuner_core.testing.tiny_run import RECIPE

    observers = {"console": None, "tensorboard": None, "jsonl": {}}
    recipe = {**RECIPE, "observer": observers, "algorithm": {**RECIPE["algorithm"], **changes}, "plugins": ["tiny"]}
    file.write_text(yaml.safe_dump(json.loads(json.dumps(recipe))))
    return file


def serve() -> None:
    """Fork a child for each request, until standard input ends; children that still run are killed."""
    import torch

    import xtuner_core.builtin.adamw.optimizer
    import xtuner_core.builtin.pretrain.algorithm
    import xtuner_core.cli.run
    import xtuner_core.testing.tiny_model
    import xtuner_core.wiring  # noqa: F401

    torch.use_deterministic_algorithms(False)  # imports what it needs, for seconds
    print("ready", flush=True)
    running: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer: dict[str, Any] = {"code": os.waitstatus_to_exitcode(status) if pid else None}
            running.discard(pid)
        else:
            pid = os.fork()
            if not pid:
                _be(request)
            running.add(pid)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _be(request: Mapping[str, Any]) -> None:
    """Become the command, in the child."""
    from xtuner_core.cli.main import main

    os.chdir(request["folder"])
    for number, name in ((0, os.devnull), (1, "out"), (2, "err")):
        target = os.open(Path(request["files"]) / name, os.O_RDWR | os.O_CREAT, 0o644)
        os.dup2(target, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    try:
        code = main(request["arguments"])
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
