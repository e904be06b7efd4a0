"""Training on documents as they are: what pre-training and supervised fine-tuning have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xtuner_core.contracts.algorithm import Services, StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.data.encoding.encoded import Encoder
from xtuner_core.data.evaluation import evaluate
from xtuner_core.data.feed import Budget, Feed
from xtuner_core.data.held_out import HeldOut, choose_held_out
from xtuner_core.data.settings import SupervisedConfig
from xtuner_core.data.store import open_store

FEW_STEPS = 30
"""Below this many, a run that is as long as its data is told to take smaller steps."""


class Supervised:
    """Documents through the feed, an evaluation every few steps, samples with each of them.

    The state is the position after the steps that the engine has reported: batches that were handed out and
    not trained on are handed out again. Base of an algorithm, which says how records become token ids and what is
    sampled.

    :param encoder: of the run's records.
    """

    def __init__(self, config: SupervisedConfig, services: Services, encoder: Encoder) -> None:
        self.config = config
        self.services = services
        budget = Budget(
            tokens_per_step=config.tokens_per_step,
            micro_batch_tokens=config.micro_batch_tokens,
            document_tokens=config.document_tokens,
        )
        self.feed = Feed.open(services, encoder, budget)
        self.steps = self.feed.steps(config.planned_epochs) if config.steps is None else config.steps
        self._warn_of_few_steps()
        self.held_out = self._choose_held_out(encoder)
        self.step = 0
        """Steps that the engine has reported."""
        self._at_start: dict[str, float] = {}
        self._evaluated: tuple[int, dict[str, float]] | None = None
        self._sampled: tuple[int, list[dict[str, Any]]] | None = None

    def sample(self) -> list[dict[str, Any]]:
        """Generate with the model as it stands; plain data, of which `prompt` and `text` are shown to a person."""
        return []

    def batches(self) -> Iterator[Sequence[PackedBatch]]:
        """Global batches from the saved position on, as many as steps are left; evaluates before the first of all."""
        if self.step == 0 and self.config.evaluate_first and self.steps:
            self._at_start = self.evaluate()
            self.samples()
        return self.read()

    def read(self) -> Iterator[Sequence[PackedBatch]]:
        """Yield the batches that `batches` gives."""
        yield from self.feed.batches(self.steps - self.step)

    def after_step(self, result: StepResult) -> Mapping[str, float]:
        """Take note of the position; evaluate and sample where it is time to."""
        self.step = result.step
        metrics = dict(self.feed.trained(result))
        every = self.config.evaluate_every
        if result.step == self.steps or (every and result.step % every == 0):
            metrics |= {f"held_out.{name}": value for name, value in self.evaluate().items()}
            self.samples()
        return metrics

    def finish(self) -> Mapping[str, Any]:
        """Count what was read, and give the last evaluation and samples."""
        summary: dict[str, Any] = {"data": dict(self.feed.summary())}
        if self.held_out.documents:
            held_out = self.evaluate()
            size = sum(part.utf8_bytes for part in self.held_out.parts)
            summary["held_out"] = {
                **held_out,
                "documents": self.held_out.documents,
                "documents_available": self.held_out.available,
                **({"bytes": size} if size else {}),
            }
            if self._at_start:
                summary["held_out_at_start"] = self._at_start
        return {**summary, "samples": self.samples()}

    def state_dict(self) -> dict[str, Any]:
        """Step, position, and what the first evaluation found."""
        return {"step": self.step, "feed": self.feed.state_dict(), "at_start": dict(self._at_start)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; comes before `batches`."""
        self.step = int(state["step"])
        self.feed.load_state_dict(state["feed"])
        self._at_start = dict(state["at_start"])

    def evaluate(self) -> dict[str, float]:
        """Score the held-out documents, once a step; nothing where there are none."""
        if not self.held_out.documents:
            return {}
        if self._evaluated is None or self._evaluated[0] != self.step:
            found = evaluate(
                self.services.engine,
                self.held_out,
                capacity=self.config.micro_batch_tokens,
                limit=self.config.document_tokens,
                overlap=self.config.evaluate_overlap,
            )
            self._evaluated = (self.step, found)
        return self._evaluated[1]

    def samples(self) -> list[dict[str, Any]]:
        """Sample once a step, and write `artifacts/samples-<step>.jsonl`."""
        if self._sampled is None or self._sampled[0] != self.step:
            found = self.sample()
            if found:
                folder = self.services.folder / "artifacts"
                folder.mkdir(parents=True, exist_ok=True)
                lines = (json.dumps({"step": self.step, **sample}, ensure_ascii=False) + "\n" for sample in found)
                (folder / f"samples-{self.step}.jsonl").write_text("".join(lines), encoding="utf-8")
            self._sampled = (self.step, found)
        return self._sampled[1]

    def _warn_of_few_steps(self) -> None:
        config = self.config
        if config.steps is None and self.steps < FEW_STEPS:
            fix = f"lower algorithm.tokens_per_step ({config.tokens_per_step}), or raise algorithm.epochs"
            values = {"steps": self.steps, "epochs": config.planned_epochs, "fix": fix}
            self.services.report("so little data makes few steps, in which a model learns little", values)

    def _choose_held_out(self, encoder: Encoder) -> HeldOut:
        held_out = choose_held_out(open_store(self.services, encoder, split="held_out"), self.config.evaluate_tokens)
        if not held_out.documents:
            fix = "give a dataset a held-out part (held_out_fraction, or a file of its own)"
            self.services.report("nothing is evaluated: no dataset has held-out data", {"fix": fix})
        elif held_out.documents < held_out.available:
            counts = {"documents": held_out.documents, "of": held_out.available}
            setting = {"algorithm.evaluate_tokens": self.config.evaluate_tokens}
            self.services.report("a part of the held-out data is evaluated", {**counts, **setting})
        return held_out
