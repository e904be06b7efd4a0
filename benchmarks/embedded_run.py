"""The embedded default and its two controls: held-out bits per byte beside those of xz, and what training cost.

The controls are an untrained model and one trained on targets that are permuted within each piece of text: what
they reach says how much of the default's figure is learned from the order of the words.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from common import RESULTS, command, machine, read_result, warn_of_load, write_result

RUNS = {
    "default": [],
    "untrained": ["algorithm.steps=0"],
    "shuffled": ["algorithm.shuffle_targets=true"],
}
"""Values behind `xtuner-core run`."""


def main() -> None:
    """Run each in a process of its own, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further values, to try the script")
    parser.add_argument("--output", type=Path, default=RESULTS / "embedded_run.json")
    chosen = parser.parse_args()
    warn_of_load()
    whole = read_result(chosen.output)
    print(f"{'run':10s} {'bits/byte':>9s} {'xz':>6s} {'ratio':>6s} {'training':>9s} {'tokens/s':>9s} {'watching':>9s}")
    for name in chosen.runs:
        values = [*chosen.set, *RUNS[name]]
        whole[name] = {"values": values, "machine": machine(), **_run(values)}
        print(_line(name, whole[name]))
    write_result(chosen.output, whole)


def _run(values: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        done = subprocess.run(command("run", *values), cwd=folder, capture_output=True, text=True, check=False)
        wall = perf_counter() - start
        if done.returncode:
            raise SystemExit(f"xtuner-core run {' '.join(values)} failed:\n{done.stderr}")
        (run,) = (Path(folder) / "runs").iterdir()
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {"wall_seconds": round(wall, 1), **_figures(summary), "losses": _thinned(losses)}


def _figures(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "bits_per_byte": summary["held_out"]["bits_per_byte"],
        "held_out_bytes": summary["held_out"]["bytes"],
        "xz_bits_per_byte": summary.get("xz", {}).get("bits_per_byte"),
        "ratio": summary.get("xz", {}).get("ratio"),
        "steps": summary["steps"],
        "tokens": summary["tokens"],
        "run_seconds": summary["seconds"],
        "training_seconds": summary["step_seconds"],
        "tokens_per_second": summary["tokens_per_second"],
        "watching_share": summary["overhead"]["share"],
        "samples": summary["samples"],
    }


def _thinned(losses: Sequence[float], points: int = 20) -> list[float]:
    """About so many of the losses, the first and the last among them."""
    stride = max(1, len(losses) // points)
    return [round(loss, 4) for loss in [*losses[:-1:stride], *losses[-1:]]]


def _line(name: str, figures: dict[str, Any]) -> str:
    xz, ratio = figures["xz_bits_per_byte"], figures["ratio"]
    against = f"{'':>6s} {'':>6s}" if xz is None else f"{xz:6.3f} {ratio:6.3f}"
    return (
        f"{name:10s} {figures['bits_per_byte']:9.3f} {against} {figures['training_seconds']:7.1f} s "
        f"{figures['tokens_per_second']:9,.0f} {100 * figures['watching_share']:7.2f} %"
    )


if __name__ == "__main__":
    main()
