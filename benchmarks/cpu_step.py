"""Training speed on a CPU against `transformers`: one optimizer step, float32, 4 documents of 512 tokens.

Both sides start from one checkpoint and see one batch. Gradients are clipped at norm 1 on both; there is no
auxiliary loss on either. Steps are interleaved, one of each side in turn, after a warm-up in which loss and
gradient norm must agree.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from common import RESULTS, machine, read_result, spread, warn_of_load, write_result

if TYPE_CHECKING:
    from cpu_step_sides import Side

WARM_UP = 3
LOSS_TOLERANCE, NORM_TOLERANCE = 1e-5, 1e-3
"""Relative, over all steps of the warm-up: both sides round differently, and a token may change experts."""

_SIZES: dict[str, dict[str, int]] = {
    "small": {"hidden": 192, "layers": 4, "experts": 8, "top_k": 2, "expert_width": 192, "vocabulary": 1024}
    | {"heads": 6, "kv_heads": 3, "head_dim": 32},
    "medium": {"hidden": 256, "layers": 4, "experts": 16, "top_k": 4, "expert_width": 256, "vocabulary": 8192}
    | {"heads": 8, "kv_heads": 4, "head_dim": 32},
    "large": {"hidden": 512, "layers": 4, "experts": 32, "top_k": 4, "expert_width": 256, "vocabulary": 8192}
    | {"heads": 8, "kv_heads": 4, "head_dim": 64},
}


def main() -> None:
    """Time the chosen sizes, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*_SIZES, "all"], default="all")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--length", type=int, default=512, help="tokens of a document")
    parser.add_argument("--threads", type=int, help="as many as PyTorch takes of itself where it is left out")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the processor's time, and take the least of each side: what a busy machine can tell, with 1 thread",
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu_step.json")
    chosen = parser.parse_args()
    # As the command `xtuner-core` does, before torch is imported: for both sides alike, they share the process.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    warn_of_load()
    whole = read_result(chosen.output)
    for name in _SIZES if chosen.size == "all" else [chosen.size]:
        whole[name] = _measure(_SIZES[name], chosen)
        print(_table(name, whole[name]))
    write_result(chosen.output, whole)


def _measure(sizes: Mapping[str, int], chosen: argparse.Namespace) -> dict[str, Any]:
    import torch
    from cpu_step_sides import EXPERTS, Size, Theirs, draw_tokens, make_checkpoint, ours

    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    before, documents, length = machine(), chosen.documents, chosen.length
    size = Size(**sizes)
    ids_BL = draw_tokens(size, documents=documents, length=length)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        parameters = make_checkpoint(size, checkpoint, length=length)
        with ours(checkpoint, ids_BL, Path(folder)) as engine:
            theirs = {name: Theirs(checkpoint, ids_BL, experts=name) for name in EXPERTS}
            sides: dict[str, Side] = {"ours": engine, **theirs}
            agreement = _warm_up(sides)
            times = _interleave(sides, chosen.repeats, process_time if chosen.cpu_time else perf_counter)
    return {
        "sizes": dict(sizes),
        "tied": True,
        "parameters": parameters,
        "batch": {"documents": documents, "length": length},
        "settings": {"dtype": "float32", "clip_norm": 1.0, "auxiliary_loss": None, "threads": torch.get_num_threads()},
        "clock": "processor time, least" if chosen.cpu_time else "wall time, median",
        "operators": engine.operators,
        "agreement": agreement,
        "machine": before | {"load_after": os.getloadavg()[0]},
        "times": {name: spread(seconds) for name, seconds in times.items()},
        **_compared(times, documents * length, min if chosen.cpu_time else median),
    }


def _warm_up(sides: Mapping[str, Side]) -> dict[str, float]:
    """Take the first steps; gives the largest relative differences between ours and any of theirs.

    :raises SystemExit: the sides do not compute the same.
    """
    worst = {"loss": 0.0, "grad_norm": 0.0}
    for _ in range(WARM_UP):
        found = {name: dict(zip(worst, side.step(), strict=True)) for name, side in sides.items()}
        reference = found["ours"]
        for values in found.values():
            worst = {
                key: max(value, abs(values[key] - reference[key]) / abs(reference[key])) for key, value in worst.items()
            }
    if not (worst["loss"] < LOSS_TOLERANCE and worst["grad_norm"] < NORM_TOLERANCE):
        raise SystemExit(f"the two sides do not compute the same: relative differences {worst}")
    return worst


def _interleave(sides: Mapping[str, Side], repeats: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            start = clock()
            side.step()
            times[name].append(clock() - start)
    return times


def _compared(
    times: Mapping[str, Sequence[float]], tokens: int, figure: Callable[[Sequence[float]], float]
) -> dict[str, Any]:
    """The figure of the faster of theirs over ours, and the quotients of single rounds."""
    figures = {name: figure(seconds) for name, seconds in times.items()}
    fastest = min((name for name in figures if name != "ours"), key=figures.__getitem__)
    rounds = [theirs / ours for theirs, ours in zip(times[fastest], times["ours"], strict=True)]
    return {
        "faster_of_theirs": fastest,
        "speedup": round(figures[fastest] / figures["ours"], 3),
        "speedup_of_rounds": [round(min(rounds), 3), round(max(rounds), 3)],
        "tokens_per_second": round(tokens / figures["ours"]),
    }


def _table(name: str, figures: Mapping[str, Any]) -> str:
    sizes = "/".join(str(value) for value in figures["sizes"].values())
    least, most = figures["speedup_of_rounds"]
    lines = [f"{name}: {sizes}, {figures['parameters'] / 1e6:.1f} M parameters"]
    for side, time in figures["times"].items():
        low, high = time["quartiles_ms"]
        lines.append(
            f"  {side:11s} {time['median_ms']:8.1f} ms  (half of the steps between {low:.1f} and {high:.1f}, "
            f"the fastest {time['min_ms']:.1f})"
        )
    lines.append(
        f"  {figures['speedup']:.2f} times {figures['faster_of_theirs']} (single rounds {least:.2f} to {most:.2f})"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
