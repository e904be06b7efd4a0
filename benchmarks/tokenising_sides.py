"""What `tokenising.py` runs, each in a process of its own: `tokenising_sides.py SIDE FILE CACHE WORKERS`.

`store` and `start` are ours, `map` and `load` those of `datasets`. Each prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

TOKENIZER = Path(__file__).resolve().parents[1] / "xtuner_core" / "builtin" / "kjv"


def store(file: Path, cache: Path, workers: int) -> dict[str, Any]:
    """Tokenise into a store; the time holds everything from the file's first byte on, its fingerprint included."""
    from xtuner_core.data.encoding.text import TextEncoder
    from xtuner_core.data.store import open_store

    services = _services(file, cache, workers)
    begun = perf_counter()
    header = open_store(services, TextEncoder(services.tokenizer))["jsonl"].header
    # An end of text stands before and after each document.
    return {
        "seconds": perf_counter() - begun,
        "documents": header.documents,
        "tokens": header.tokens - 2 * header.documents,
    }


def start(file: Path, cache: Path, workers: int) -> dict[str, Any]:
    """Open the feed on what is there, and take its first batch."""
    from xtuner_core.data.encoding.text import TextEncoder
    from xtuner_core.data.feed import Budget, Feed

    services = _services(file, cache, workers)
    begun = perf_counter()
    budget = Budget(tokens_per_step=65536, micro_batch_tokens=8192, document_tokens=2048)
    feed = Feed.open(services, TextEncoder(services.tokenizer), budget)
    next(feed.batches(1))
    first = perf_counter() - begun
    begun = perf_counter()
    steps = feed.steps_per_epoch
    planned = perf_counter() - begun
    begun = perf_counter()
    taken = [sum(batch.tokens for batch in step) for step in feed.batches(min(steps, 50))]
    return {
        "first_batch_seconds": first,
        "planning_an_epoch_seconds": planned,
        "steps_per_epoch": steps,
        "batch_ms": (perf_counter() - begun) / len(taken) * 1e3,
        "fill": sum(taken) / len(taken) / budget.tokens_per_step,
    }


def _services(file: Path, cache: Path, workers: int) -> Any:
    from xtuner_core.builtin.files.config import JsonlConfig
    from xtuner_core.builtin.files.jsonl import JsonlCorpus
    from xtuner_core.config.root import DataConfig
    from xtuner_core.contracts.algorithm import Services
    from xtuner_core.hf.tokenizer import load_tokenizer

    nothing: Any = None
    return Services(
        engine=nothing,
        tokenizer=load_tokenizer(TOKENIZER),
        corpora={"jsonl": JsonlCorpus(JsonlConfig(path=str(file)), cache=cache)},
        seed=0,
        folder=cache,
        data=DataConfig(workers=workers),
        cache=cache,
        report=lambda event, values: print(event, dict(values), file=sys.stderr),
        stopping=lambda: None,
    )


def load(file: Path, cache: Path, workers: int) -> dict[str, Any]:
    """Read the file with `datasets`, which converts it to Arrow; `map` then finds it done."""
    del workers
    begun = perf_counter()
    rows = _dataset(file, cache)
    return {"seconds": perf_counter() - begun, "documents": len(rows)}


def map(file: Path, cache: Path, workers: int) -> dict[str, Any]:  # noqa: A001  its name there
    """Tokenise with `datasets.map`, with the same tokenizer and its fastest call; only `map` itself is timed."""
    rows = _dataset(file, cache)
    begun = perf_counter()
    done = rows.map(
        _Tokenise(str(TOKENIZER / "tokenizer.json")), batched=True, num_proc=workers, remove_columns=["text"]
    )
    seconds = perf_counter() - begun
    tokens = sum(len(ids) for batch in done.with_format("arrow").iter(10_000) for ids in batch["input_ids"])
    return {"seconds": seconds, "documents": len(done), "tokens": tokens}


class _Tokenise:
    """Holds the tokenizer's file, which its processes read once each."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._tokenizer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_file": self._file, "_tokenizer": None}

    def __call__(self, batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        if self._tokenizer is None:
            import tokenizers

            self._tokenizer = tokenizers.Tokenizer.from_file(self._file)
        encoded = self._tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False)
        return {"input_ids": [each.ids for each in encoded]}


def _dataset(file: Path, cache: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(cache))


SIDES = {"store": store, "start": start, "load": load, "map": map}


if __name__ == "__main__":
    _, side, where, caches, count = sys.argv
    found = SIDES[side](Path(where), Path(caches), int(count))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # Of all its processes, imports included: what another load on the machine moves least.
    found["cpu_seconds"] = sum(each.ru_utime + each.ru_stime for each in used)
    print(json.dumps(found))
