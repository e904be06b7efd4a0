"""Tokenising a million short documents, and one of 200 MB in a line: time and memory, beside `datasets.map`.

Documents are spans of the bundled King James text, in JSON Lines. Ours goes from the file to a store that a run
trains from; of `datasets`, reading the file (into Arrow) and `map` are timed apart. Sides take turns. Memory is the
peak of the sum over a side's processes, sampled: resident (pages that several map counted in each) and proportional
(such pages shared out). Needs `pip install datasets psutil`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import psutil
from common import RESULTS, machine, warn_of_load, write_result

from xtuner_core.builtin.kjv.text import documents

SIDES = Path(__file__).with_name("tokenising_sides.py")
SAMPLE = 0.1
"""Seconds between two looks at the memory."""
BOUNDS = {"short": 800, "long": 1500}
"""Megabytes, resident, that ours stays below with two processes, as `docs/explanation/data.md` states."""
FIRST_BATCH = 10.0
"""Seconds within which the second start has its first batch."""


def main() -> None:
    """Write the files, then run the sides on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--long-bytes", type=int, default=200_000_000, help="0 leaves the long document out")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="where the files and caches lie meanwhile")
    parser.add_argument("--output", type=Path, default=RESULTS / "tokenising.json")
    chosen = parser.parse_args()
    warn_of_load()
    result: dict[str, Any] = {"machine": machine(), "workers": chosen.workers}
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as folder:
        result["short"] = _short(Path(folder), chosen)
        if chosen.long_bytes:
            result["long"] = _long(Path(folder), chosen)
    result["shows"] = shows = _shows(result)
    print("\n".join(f"{name}: {value}" for name, value in shows.items()))
    write_result(chosen.output, result)


def _shows(result: dict[str, Any]) -> dict[str, Any]:
    """What it all comes to."""
    rounds, found = result["short"]["rounds"], {}
    found["map over store, time, by round"] = [
        round(turn["map"]["seconds"] / turn["store"]["seconds"], 2) for turn in rounds
    ]
    for name, bound in BOUNDS.items():
        if name in result:
            starts = result[name]["second_start"]
            stored = rounds if name == "short" else [result["long"]]
            peak = max(each["peak_resident_mb"] for each in (*(turn["store"] for turn in stored), starts))
            found[f"{name}: peak MB below {bound}"] = peak < bound
            found[f"{name}: first batch within {FIRST_BATCH} s"] = starts["first_batch_seconds"] < FIRST_BATCH
    return found


def _short(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    file = folder / "short.jsonl"
    with file.open("w") as stream:
        stream.writelines(_short_lines(chosen.documents))
    rounds = [_round(file, folder, chosen.workers, number) for number in range(chosen.rounds)]
    for figures in rounds:
        assert figures["store"]["tokens"] == figures["map"]["tokens"], "both sides tokenise alike"
        assert figures["store"]["documents"] == figures["map"]["documents"] == chosen.documents
    start = _measure("start", file, folder / f"ours-{chosen.rounds - 1}", chosen.workers)
    return {"documents": chosen.documents, "bytes": file.stat().st_size, "rounds": rounds, "second_start": start}


def _round(file: Path, folder: Path, workers: int, number: int) -> dict[str, Any]:
    """One turn of each side, on empty caches; ours first in even rounds."""
    ours, theirs = folder / f"ours-{number}", folder / f"theirs-{number}"
    turns = {"store": [("store", ours)], "map": [("load", theirs), ("map", theirs)]}
    figures: dict[str, Any] = {}
    for name in sorted(turns, reverse=number % 2 == 0):
        for side, cache in turns[name]:
            figures[side] = _measure(side, file, cache, workers)
    shutil.rmtree(theirs)
    return figures


def _long(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    file = folder / "long.jsonl"
    with file.open("w") as stream:
        stream.writelines(_long_line(chosen.long_bytes))
    ours = folder / "ours-long"
    stored = _measure("store", file, ours, chosen.workers)
    start = _measure("start", file, ours, chosen.workers)
    return {"bytes": file.stat().st_size, "store": stored, "second_start": start}


def _short_lines(count: int) -> Iterator[str]:
    """Spans of 40 to 400 characters from anywhere in the text."""
    text, draw = "".join(documents("train")), random.Random(0)
    for _ in range(count):
        size = draw.randint(40, 400)
        at = draw.randrange(len(text) - size)
        yield json.dumps({"text": text[at : at + size]}) + "\n"


def _long_line(size: int) -> Iterator[str]:
    """The chapters in one shuffled order after another, in one JSON string."""
    chapters, draw, written = documents("train"), random.Random(0), 0
    yield '{"text": "'
    while written < size:
        draw.shuffle(chapters)
        for chapter in chapters:
            if written < size:
                written += len(chapter)
                yield json.dumps(chapter)[1:-1]
    yield '"}\n'


def _measure(side: str, file: Path, cache: Path, workers: int) -> dict[str, Any]:
    """Run a side, watch its memory, and print what it found."""
    begun = perf_counter()
    process = psutil.Popen(
        [sys.executable, str(SIDES), side, str(file), str(cache), str(workers)], stdout=subprocess.PIPE, text=True
    )
    resident = proportional = 0
    while process.poll() is None:
        one, other = _memory(process)
        resident, proportional = max(resident, one), max(proportional, other)
        sleep(SAMPLE)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{side} failed")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    found |= {
        "process_seconds": round(perf_counter() - begun, 2),
        "peak_resident_mb": round(resident / 1e6),
        "peak_proportional_mb": round(proportional / 1e6),
    }
    print(f"{side:6s} {file.name:12s}", json.dumps({name: _short_number(value) for name, value in found.items()}))
    return found


def _short_number(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def _memory(process: psutil.Popen) -> tuple[int, int]:
    """Bytes of a process and all below it: resident, and proportional."""
    resident = proportional = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0
    for member in family:
        try:
            held = member.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        resident, proportional = resident + held.rss, proportional + held.pss
    return resident, proportional


if __name__ == "__main__":
    main()
