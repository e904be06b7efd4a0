"""The instructions of `first_fine_tune.py`: questions with exact answers, drawn by the generators of reasoning-gym."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS: dict[str, dict[str, Any]] = {
    "needle_haystack": {"min_num_statements": 4, "max_num_statements": 8},
    "family_relationships": {},
    "word_sequence_reversal": {"min_words": 3, "max_words": 5},
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
}
"""Generator and its options: sizes that a model of 135 million parameters can be asked about."""
TRAIN_SEED, HELD_OUT_SEED = 0, 1_000_000_000
"""A generator draws its i-th question from seed + i, so that the seeds must lie far apart."""


@dataclass(frozen=True, slots=True)
class Task:
    """A question and its only right answer."""

    kind: str
    question: str
    answer: str

    def is_right(self, reply: str) -> bool:
        """Whether a reply ends with the answer, case and punctuation aside: what comes before may be a sentence."""
        expected = _words(self.answer)
        return _words(reply)[-len(expected) :] == expected

    def conversation(self) -> dict[str, Any]:
        """The task as a line of a dataset."""
        turns = (("user", self.question), ("assistant", self.answer))
        return {"messages": [{"role": role, "content": content} for role, content in turns]}


def _words(text: str) -> list[str]:
    return re.findall(r"-?[\w]+(?:-\w+)*", text.casefold())


def draw(count: int, seed: int, *, taken: Iterable[Task] = ()) -> list[Task]:
    """Draw as many tasks of each kind, in turn; no question twice, and none of `taken`."""
    questions = {task.question for task in taken}
    by_kind = [_of_kind(kind, count, seed, questions) for kind in KINDS]
    return [task for together in zip(*by_kind, strict=True) for task in together]


def _of_kind(kind: str, count: int, seed: int, questions: set[str]) -> list[Task]:
    found: list[Task] = []
    for task in _endless(kind, seed):
        if len(found) == count:
            break
        if task.question not in questions:
            questions.add(task.question)
            found.append(task)
    return found


def _endless(kind: str, seed: int) -> Iterator[Task]:
    from reasoning_gym import create_dataset

    dataset = create_dataset(kind, seed=seed, size=HELD_OUT_SEED, **KINDS[kind])
    for index in range(len(dataset)):
        entry = dataset[index]
        yield Task(kind, entry["question"].strip(), str(entry["answer"]).strip())


def write(tasks: Iterable[Task], file: Path) -> Path:
    """Write tasks as JSON Lines of `messages`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(task.conversation()) + "\n" for task in tasks), encoding="utf-8")
    return file
