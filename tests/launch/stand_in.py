"""Stands for a rank: does what its orders' folder asks of it, and imports no torch. Run as a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from xtuner_core.engine.ranks.heartbeat import DONE
from xtuner_core.launch.lifeline import hold_lifeline
from xtuner_core.launch.orders import read_orders
from xtuner_core.launch.vitals import vitals


def main() -> int:
    membership, start = read_orders(Path(sys.argv[-1]))
    folder, asked = Path(start.folder), []
    hold_lifeline(asked.append)
    roles = json.loads((folder / "roles.json").read_text())
    role = roles[membership.rank]
    (folder / f"pid-{membership.rank}").write_text(str(os.getpid()))
    with vitals(folder, membership.rank) as heartbeat:
        heartbeat.at(7, "backward")
        if role == "works":
            while not (asked or (folder / "enough").exists()):
                time.sleep(0.01)
            (folder / f"ended-{membership.rank}").write_text(" ".join(asked))
            heartbeat.at(8, DONE)
        elif role == "raises":
            raise MemoryError("no room for 3 TB")
        elif role == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif role == "has a child":
            child = subprocess.Popen(["sleep", "600"])
            (folder / "child").write_text(str(child.pid))
            while True:
                time.sleep(0.01)
        elif role == "is stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
            while True:
                time.sleep(0.01)
        else:
            assert role == "waits"
            while True:
                time.sleep(0.01)
    return 0


if __name__ == "__main__":
    sys.exit(main())
