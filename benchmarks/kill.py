"""Kill runs at random instants, cut their saves short, flip bytes of their checkpoints: what comes out is the same.

    python benchmarks/kill.py                # 20 kills, a full disk, a flipped byte; writes results/kill.json
    python benchmarks/kill.py --seed 7 --kills 3

A run of the kit's tiny model goes to its end undisturbed. Then, for each trial, the same run is started, killed
with SIGKILL at an instant that its seed draws, and resumed by the same command; the exported weights and the
losses of all steps must equal those of the undisturbed run bit for bit. Every fourth trial at least is killed
while a checkpoint is being written, which is made certain by watching for the hidden folder that a save writes to.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from common import RESULTS, machine, write_result
from processes import Process, Server, tiny_recipe

STEPS = 40
EVERY = 2
DECISIVE = ("loss", "grad_norm", "learning_rate", "tokens", "statistics.expert_load")
"""Metrics that must come out the same, beside the weights."""


@dataclass(frozen=True)
class Ending:
    """What a run came to."""

    weights: str
    """SHA-256 of the exported tensors."""
    metrics: list[dict[str, Any]]


class Trials:
    """One undisturbed run, and runs that are to equal it.

    :param home: an empty folder.
    """

    def __init__(self, server: Server, home: Path, *, steps: int = STEPS) -> None:
        self._server = server
        self._home = home
        self.recipe = tiny_recipe(home / "recipe.yaml", {"steps": steps})
        begun = monotonic()
        whole = self.start(home / "whole")
        assert whole.wait() == 0, whole.complained
        self.seconds = monotonic() - begun
        self.expected = ending(home / "whole")

    def start(self, folder: Path, *more: str) -> Process:
        """Start the run, or go on with it: the command is the same."""
        return self._server.start(self.command(folder, *more), self._home)

    def command(self, folder: Path, *more: str) -> list[str]:
        """What a scheduler's script would hold."""
        return ["run", str(self.recipe), f"checkpoint.every_steps={EVERY}", "--folder", str(folder), "--resume", *more]

    def kill_at(self, seed: int) -> dict[str, Any]:
        """Kill at an instant between the start of the process and its end; tries until it was not too late."""
        drawn = random.Random(seed)
        for attempt in range(50):
            folder, instant = self._home / f"at-{seed}-{attempt}", drawn.uniform(0.0, self.seconds * 0.7**attempt)
            process = self.start(folder)
            sleep(instant)
            found = {"seed": seed, "instant": round(instant, 4), **self._killed(process, folder)}
            if found["killed"]:
                return found
        raise AssertionError("fifty runs, and all had ended before they were killed")

    def kill_inside_a_save(self, seed: int) -> dict[str, Any]:
        """Kill while a checkpoint is being written; tries until what is left behind proves that it was."""
        drawn = random.Random(seed)
        for attempt in range(50):
            folder = self._home / f"save-{seed}-{attempt}"
            number, delay = drawn.randint(1, 8), drawn.uniform(0.0, 0.015)
            process = self.start(folder)
            seen = see_saves(process, folder, number)
            sleep(delay if seen else 0.0)
            found = {"seed": seed, "save": number, "delay": round(delay, 5), **self._killed(process, folder)}
            if found["inside_a_save"]:
                return found
        raise AssertionError("fifty kills, and none inside a save")

    def fill_the_disk(self, seed: int) -> dict[str, Any]:
        """Let no file grow beyond less than a checkpoint needs from some save on, then kill and resume."""
        drawn = random.Random(seed)
        folder, number = self._home / f"full-{seed}", drawn.randint(2, 5)
        process = self.start(folder)
        see_saves(process, folder, number)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        until(process, lambda: "checkpoint not saved" in process.complained)
        warned = process.complained.count("checkpoint not saved, the run goes on: File too large")
        return {"seed": seed, "save": number, "warned": warned, **self._killed(process, folder)}

    def flip_a_byte(self, seed: int) -> dict[str, Any]:
        """Kill, and change one bit of one byte of one file of the newest checkpoint."""
        drawn = random.Random(seed)
        folder, number = self._home / f"flip-{seed}", drawn.randint(3, 8)
        process = self.start(folder)
        see_saves(process, folder, number)
        process.send(signal.SIGKILL)
        process.wait()
        newest = max((folder / "checkpoints").glob("step-*"))
        file = drawn.choice(sorted(item for item in newest.rglob("*") if item.is_file()))
        where = flip(file, drawn)
        found = {"seed": seed, "file": str(file.relative_to(newest)), "byte": where, **self._resumed(folder)}
        assert f"damaged-{newest.name}" in found["said"], found
        return found

    def _killed(self, process: Process, folder: Path) -> dict[str, Any]:
        process.send(signal.SIGKILL)
        code = process.wait()
        assert code in (-signal.SIGKILL, 0), process.complained
        left = [item.name for item in hidden(folder)]
        saved = sorted(item.name for item in (folder / "checkpoints").glob("step-*"))
        where = {"killed": code != 0, "checkpoints": saved, "inside_a_save": any("step-" in name for name in left)}
        return {**where, **self._resumed(folder)}

    def _resumed(self, folder: Path) -> dict[str, Any]:
        again = self.start(folder)
        assert again.wait() == 0, again.complained
        found = ending(folder)
        assert not list(hidden(folder)), "a dead save left something behind"
        return {"equal": found == self.expected, "said": again.complained.strip()[-600:]}


def ending(folder: Path) -> Ending:
    """Read a finished run."""
    weights = hashlib.sha256((folder / "export" / "model.safetensors").read_bytes()).hexdigest()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return Ending(weights, [{name: line[name] for name in ("step", *DECISIVE)} for line in lines])


def hidden(folder: Path) -> Iterator[Path]:
    """What a save writes to before it is complete."""
    yield from folder.glob(".*.partial")
    yield from folder.glob("checkpoints/.*")


def see_saves(process: Process, folder: Path, number: int) -> bool:
    """Wait until the run begins its `number`-th save; says whether it came to that."""
    seen: set[str] = set()

    def look() -> bool:
        seen.update(item.name for item in hidden(folder) if item.name.startswith(".step-") and "partial" in item.name)
        return len(seen) >= number

    until(process, look, pause=0.0)
    return len(seen) >= number


def until(process: Process, holds: Callable[[], bool], *, pause: float = 0.002) -> None:
    """Wait until something holds, or the process has ended."""
    end = monotonic() + 60
    checked = monotonic()
    while not holds():
        if monotonic() - checked > 0.05:
            if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
            checked = monotonic()
        assert monotonic() < end, process.complained
        sleep(pause)


def flip(file: Path, drawn: random.Random) -> int:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    where = drawn.randrange(len(content))
    content[where] ^= 1 << drawn.randrange(8)
    file.write_bytes(content)
    return where


def fill_a_small_disk(trials: Trials, server: Server, home: Path) -> dict[str, Any]:
    """The run on a file system of 1.5 MB, all checkpoints kept; then room is made, and the same command goes on.

    The file system is mounted in a namespace of the user's own; where the system allows none, this is said.
    """
    disk = home / "disk"
    disk.mkdir()
    call = [sys.executable, "-m", "xtuner_core"]
    first = shlex.join([*call, *trials.command(disk / "run", "checkpoint.keep_last=50")])
    again = shlex.join([*call, *trials.command(disk / "run")])
    script = f"""
        mount -t tmpfs -o size=1500k disk {disk} || exit 99
        {first}; echo first $?; ls -a {disk}/run/checkpoints
        rm -r {disk}/run/checkpoints/step-00000002
        {again}; echo again $?; cp -r {disk}/run {home}/from-disk
    """
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        env=server.environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    if not (home / "from-disk").exists():
        return {"equal": None, "said": done.stderr[-600:]}
    warned = done.stderr.count("checkpoint not saved, the run goes on: No space left on device")
    assert warned, done.stderr
    return {"warned": warned, "said": done.stdout.split(), "equal": ending(home / "from-disk") == trials.expected}


def main() -> None:
    """Run all trials and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "kill.json")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp())
    try:
        with Server() as server:
            found = tried(Trials(server, home), server, home, options)
    finally:
        shutil.rmtree(home)
    write_result(options.output, {"machine": machine(), "steps": STEPS, "saves_every": EVERY, **found})


def tried(trials: Trials, server: Server, home: Path, options: argparse.Namespace) -> Mapping[str, Any]:
    """Every kind of trial; what differs ends the script."""
    seeds = range(options.seed, options.seed + options.kills)
    kills = [
        checked((trials.kill_inside_a_save if n % 3 == 0 else trials.kill_at)(seed)) for n, seed in enumerate(seeds)
    ]
    full = [checked(trials.fill_the_disk(seed)) for seed in range(options.seed, options.seed + 3)]
    flipped = [checked(trials.flip_a_byte(seed)) for seed in range(options.seed, options.seed + 5)]
    small = fill_a_small_disk(trials, server, home)
    assert small["equal"] is not False, small
    inside = sum(each["inside_a_save"] for each in kills)
    print(f"{len(kills)} kills, {inside} of them inside a save; {len(full)} full disks, {len(flipped)} flipped bytes")
    seconds = round(trials.seconds, 2)
    return {
        "undisturbed_seconds": seconds,
        "kills": kills,
        "full_disk": full,
        "flipped": flipped,
        "file_system_of_1500_kB": small,
    }


def checked(trial: dict[str, Any]) -> dict[str, Any]:
    """Print a trial, and refuse one that came to another end."""
    assert trial["equal"], trial
    told = {name: value for name, value in trial.items() if name != "said"}
    print(json.dumps(told), flush=True)
    return told


if __name__ == "__main__":
    main()
