"""Pre-training: plain texts through the feed, an evaluation in bits per byte, continuations of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from xtuner_core.builtin.pretrain.background import Background
from xtuner_core.builtin.pretrain.config import PretrainConfig
from xtuner_core.builtin.pretrain.control import shuffled
from xtuner_core.contracts.algorithm import Services
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.dataset import Corpus, Split, TextRecord
from xtuner_core.contracts.sampling import Sampling
from xtuner_core.data.compression import xz_bits_per_byte
from xtuner_core.data.encoding.text import TextEncoder
from xtuner_core.data.supervised import Supervised


class Pretrain(Supervised):
    """Next-token prediction on plain text."""

    config: PretrainConfig

    def __init__(self, config: PretrainConfig, services: Services) -> None:
        super().__init__(config, services, TextEncoder(services.tokenizer))
        self._xz = self._start_xz() if config.compare_xz and self.held_out.documents else None

    def read(self) -> Iterator[Sequence[PackedBatch]]:
        """Yield the batches; those of the control experiment with permuted labels."""
        for number, batches in enumerate(super().read(), self.step):
            if self.config.shuffle_targets:
                key = self.services.seed, number
                yield [shuffled(batch, (*key, index)) for index, batch in enumerate(batches)]
            else:
                yield batches

    def finish(self) -> Mapping[str, Any]:
        """Compare with `xz` beside what the evaluation found."""
        summary = dict(super().finish())
        if self._xz is not None:
            xz = self._xz.result()
            summary["xz"] = {"bits_per_byte": xz, "ratio": summary["held_out"]["bits_per_byte"] / xz}
        return summary

    def sample(self) -> list[dict[str, Any]]:
        """Continue each prompt as the beginning of a document."""
        config, tokenizer, prompts = self.config, self.services.tokenizer, self.config.sample_prompts
        if not prompts:
            return []
        sampling = Sampling(
            max_tokens=config.sample_tokens,
            temperature=config.sample_temperature,
            stop_token_ids=(tokenizer.end_of_text,),
            seed=self.services.seed,
        )
        beginnings = [[tokenizer.end_of_text, *tokenizer.encode(prompt)] for prompt in prompts]
        samples = self.services.engine.generate(beginnings, sampling)
        return [
            {"prompt": prompt, "text": tokenizer.decode(sample.token_ids), "stop": sample.stop}
            for prompt, sample in zip(prompts, samples, strict=True)
        ]

    def _start_xz(self) -> Background:
        train, held_out = (read_texts(self.services.corpora, split) for split in ("train", "held_out"))
        return Background(partial(xz_bits_per_byte, "".join(train).encode(), "".join(held_out).encode()))


def read_texts(corpora: Mapping[str, Corpus], split: Split) -> Iterator[str]:
    """Yield all texts of a part, dataset by dataset."""
    for corpus in corpora.values():
        for shard in corpus.shards(split):
            yield from (record.text for record in corpus.read(split, shard) if isinstance(record, TextRecord))


def build(config: PretrainConfig, services: Services) -> Pretrain:
    """Build the algorithm of `config`."""
    return Pretrain(config, services)
