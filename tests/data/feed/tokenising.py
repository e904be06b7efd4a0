"""A program that opens a store, for tests that kill it or run it twice: `tokenising.py CACHE MARKS WORKERS`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from feed_corpora import Ids, Waiting, tokens

from xtuner_core.config.root import DataConfig
from xtuner_core.data.store import open_store


def say(*words: str) -> None:
    """Write a line at once."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def main(cache: str, marks: str, workers: str) -> None:
    """Open the store; say what was reported, and `opened` with the store's name."""
    services: Any = SimpleNamespace(
        corpora={"one": Waiting(tokens(40), marks=marks)},
        tokenizer=SimpleNamespace(size=60_000),
        data=DataConfig(workers=int(workers)),
        cache=Path(cache),
        report=lambda event, values: say(event),
        stopping=lambda: None,
    )
    say("opened", open_store(services, Ids())["one"].folder.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
