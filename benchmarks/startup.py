"""How long `xtuner-core --help` and `xtuner-core plugins list` take, beside an interpreter that does nothing."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from common import RESULTS, machine, spread, warn_of_load, write_result


def main() -> None:
    """Time each command in turn, `--repeats` times after one that is not counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--output", type=Path, default=RESULTS / "startup.json")
    chosen = parser.parse_args()
    warn_of_load()
    commands = _commands()
    times: dict[str, list[float]] = {name: [] for name in commands}
    for counted in [False, *[True] * chosen.repeats]:
        for name, command in commands.items():
            seconds = _time(command)
            if counted:
                times[name].append(seconds)
    figures = {name: spread(seconds) for name, seconds in times.items()}
    for name, figure in figures.items():
        print(f"{name:28s} {figure['median_ms']:7.1f} ms  ({figure['min_ms']:.1f} to {figure['max_ms']:.1f})")
    write_result(chosen.output, {"machine": machine(), "commands": figures})


def _commands() -> dict[str, list[str]]:
    script = str(Path(sys.executable).with_name("xtuner-core"))
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "xtuner-core --help": [script, "--help"],
        "xtuner-core plugins list": [script, "plugins", "list"],
    }


def _time(command: list[str]) -> float:
    start = perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return perf_counter() - start


if __name__ == "__main__":
    main()
