"""Pre-training: packs of plain text in a seeded order, and an evaluation in bits per byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from xtuner_core.builtin.pretrain.config import PretrainConfig
from xtuner_core.builtin.pretrain.corpus import held_out_text, read_texts, training_text
from xtuner_core.builtin.pretrain.evaluate import Background, continue_prompts, render_samples, score_held_out
from xtuner_core.contracts.algorithm import Services, StepResult
from xtuner_core.contracts.batch import Document, PackedBatch
from xtuner_core.data.compression import xz_bits_per_byte
from xtuner_core.data.source import PackSource, Position


class Pretrain:
    """Next-token prediction.

    The state is the position after the steps that the engine has reported: batches that were handed out and
    not trained on are handed out again.
    """

    def __init__(self, config: PretrainConfig, services: Services) -> None:
        self.steps = config.steps
        self._config = config
        self._services = services
        train = read_texts(services.corpora, "train")
        held_out = read_texts(services.corpora, "held_out")
        self._train = training_text(train, services.tokenizer, config)
        self._held_out = held_out_text(held_out, services.tokenizer, config)
        self._source = self._make_source()
        self._step, self._position = 0, Position()
        self._ahead: dict[int, Position] = {}
        self._real_tokens, self._tokens = 0, 0
        self._evaluated: tuple[int, dict[str, float]] | None = None
        self._xz = self._start_xz(train, held_out)

    def batches(self) -> Iterator[Sequence[PackedBatch]]:
        """Global batches from the saved position on, as many as steps are left."""
        packs = self._source.read(self._position)
        for step in range(self._step + 1, self.steps + 1):
            read = [next(packs) for _ in range(self._config.tokens_per_step // self._config.micro_batch_tokens)]
            self._ahead[step] = read[-1][1]
            yield [batch for batch, _ in read]

    def after_step(self, result: StepResult) -> Mapping[str, float]:
        """Take note of the position; evaluate where it is time to."""
        self._step = result.step
        self._position = self._ahead.pop(result.step)
        self._real_tokens += result.tokens
        self._tokens += self._config.tokens_per_step
        every = self._config.evaluate_every
        if not every or result.step % every or not self._held_out.bytes:
            return {}
        return {"held_out.bits_per_byte": self._evaluate()["bits_per_byte"]}

    def finish(self) -> Mapping[str, Any]:
        """Evaluate, compare, continue the prompts, and count what was read."""
        summary: dict[str, Any] = {
            "documents": self._train.documents,
            "split": self._train.split,
            "pieces": len(self._train.pieces),
            "epochs": self._position.epoch,
            "fill": self._real_tokens / self._tokens if self._tokens else 1.0,
        }
        if self._held_out.bytes:
            summary["held_out"] = held_out = self._evaluate()
            if self._xz is not None:
                xz = self._xz.result()
                summary["xz"] = {"bits_per_byte": xz, "ratio": held_out["bits_per_byte"] / xz}
        summary["samples"] = self._sample()
        return summary

    def state_dict(self) -> dict[str, Any]:
        """Step, position and counts."""
        return {
            "step": self._step,
            "epoch": self._position.epoch,
            "pack": self._position.pack,
            "real_tokens": self._real_tokens,
            "tokens": self._tokens,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; comes before `batches`."""
        self._step = int(state["step"])
        self._position = Position(int(state["epoch"]), int(state["pack"]))
        self._real_tokens, self._tokens = int(state["real_tokens"]), int(state["tokens"])

    def _make_source(self) -> PackSource:
        pieces, seed = self._train.pieces, self._services.seed
        if self._config.shuffle_targets:
            pieces = [shuffled(piece, seed=seed + index) for index, piece in enumerate(pieces)]
        lengths = [len(piece) for piece in pieces]
        return PackSource(pieces, lengths, capacity=self._config.micro_batch_tokens, seed=seed)

    def _start_xz(self, train: Sequence[str], held_out: Sequence[str]) -> Background | None:
        if not self._config.compare_xz or not self._held_out.bytes:
            return None
        return Background(partial(xz_bits_per_byte, "".join(train).encode(), "".join(held_out).encode()))

    def _evaluate(self) -> dict[str, float]:
        """Score the held-out text, once a step."""
        if self._evaluated is None or self._evaluated[0] != self._step:
            capacity = self._config.micro_batch_tokens
            found = score_held_out(self._services.engine, self._held_out, capacity=capacity)
            self._evaluated = (self._step, found)
        return self._evaluated[1]

    def _sample(self) -> list[dict[str, str]]:
        services = self._services
        samples = continue_prompts(services.engine, services.tokenizer, self._config, services.seed)
        if samples:
            folder = services.folder / "artifacts"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "samples.txt").write_text(render_samples(samples), encoding="utf-8")
        return samples


def shuffled(document: Document, *, seed: int) -> Document:
    """Permute a document's labels, and the weights with them."""
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(document), generator=random)
    return replace(document, labels=document.labels[order], weights=document.weights[order])


def build(config: PretrainConfig, services: Services) -> Pretrain:
    """Build the algorithm of `config`."""
    return Pretrain(config, services)
