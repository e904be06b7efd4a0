"""The algorithm parrot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xtuner_core.contracts.algorithm import Services, StepResult
from xtuner_core.contracts.batch import Document, PackedBatch, pack


class Parrot:
    """Trains on the beginning of the first text over and over."""

    def __init__(self, config: Any, services: Services) -> None:
        self.steps = config.steps
        self._done = 0
        corpus = next(iter(services.corpora.values()))
        record: Any = next(iter(corpus.read("train", corpus.shards("train")[0])))
        ids = services.tokenizer.encode(record.text)
        self._batch = pack([Document.of(ids[: config.tokens])])

    def batches(self) -> Iterator[Sequence[PackedBatch]]:
        """The same batch, as often as steps are left."""
        for _ in range(self.steps - self._done):
            yield [self._batch]

    def after_step(self, result: StepResult) -> Mapping[str, float]:
        """Count."""
        self._done = result.step
        return {"parrot.repeated": float(result.step)}

    def finish(self) -> Mapping[str, Any]:
        """How often the text was heard."""
        return {"repeated": self._done}

    def state_dict(self) -> dict[str, Any]:
        """The count."""
        return {"done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._done = int(state["done"])
