"""Which rank failed first, and how: the others fail because it is gone."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from xtuner_core.contracts.launcher import RankFailure
from xtuner_core.launch.child import Child
from xtuner_core.launch.last_words import LastWords
from xtuner_core.launch.words import ending, place

TAIL = 4000
"""Characters that are shown of the end of a file."""


def death_of(children: Sequence[Child]) -> RankFailure:
    """Tell of the rank that failed first.

    That is one which a signal ended, for nobody sends one because another rank is gone (SIGABRT apart, by which
    libraries give up); else the one whose last words are the oldest; else any.
    """
    failed = [child for child in children if child.failed]
    first = min(failed, key=_order)
    others = [f"rank {child.rank}: {_told(child)}" for child in failed if child is not first]
    details = "\n".join([_details(first), *(["", "ranks that failed after it:", *others] if others else [])])
    words = first.words
    if words is not None and words.foreseen:
        return RankFailure(
            rank=first.rank,
            message=words.message,
            details=details,
            error=words.type,
            fix=words.fix,
            notes=words.notes,
        )
    notes = () if words is None else words.notes
    return RankFailure(rank=first.rank, message=f"rank {first.rank} {_told(first)}", details=details, notes=notes)


def _order(child: Child) -> tuple[int, float]:
    words, code = child.words, child.code or 0
    if code < 0 and code != -signal.SIGABRT:
        return 0, 0.0
    return (2, 0.0) if words is None else (1, words.time)


def _told(child: Child) -> str:
    words, code = child.words, child.code
    assert code is not None, "it has ended"
    if words is None:
        return f"{ending(code)}, {place(child.beat)}"
    return f"failed {place(child.beat)}: {_error(words)}"


def _error(words: LastWords) -> str:
    first = next(iter(words.message.splitlines()), "")
    return f"{words.type}: {first}" if first else words.type


def _details(child: Child) -> str:
    words = child.words
    parts = [
        "" if words is None else words.traceback,
        _titled("stacks", child.files.stacks),
        "" if words is not None else _titled("the end of its output", child.files.output),
    ]
    return "\n".join(part.rstrip() for part in parts if part)


def _titled(title: str, file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")[-TAIL:]
    except OSError:
        return ""
    return f"{title} ({file}):\n{text}" if text.strip() else ""
