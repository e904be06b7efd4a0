"""Supervised fine-tuning: conversations through the feed, the loss of held-out answers, and answers to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xtuner_core.builtin.sft.config import SftConfig
from xtuner_core.builtin.sft.questions import Question, choose_questions
from xtuner_core.contracts.algorithm import Services
from xtuner_core.contracts.sampling import Sampling
from xtuner_core.data.encoding.chat import ChatEncoder
from xtuner_core.data.supervised import Supervised


class Sft(Supervised):
    """Next-token prediction on what the assistant says."""

    config: SftConfig

    def __init__(self, config: SftConfig, services: Services) -> None:
        encoder = ChatEncoder(services.tokenizer, config.chat)
        super().__init__(config, services, encoder)
        self._questions: Sequence[Question] = choose_questions(config, services, encoder)

    def sample(self) -> list[dict[str, Any]]:
        """Answer each question, up to the end of the turn."""
        config, tokenizer = self.config, self.services.tokenizer
        if not self._questions:
            return []
        sampling = Sampling(
            max_tokens=config.sample_tokens,
            temperature=config.sample_temperature,
            stop_token_ids=tuple(tokenizer.stop_tokens),
            seed=self.services.seed,
        )
        samples = self.services.engine.generate([question.token_ids for question in self._questions], sampling)
        return [
            {**question.shown(), "text": tokenizer.decode(sample.token_ids), "stop": sample.stop}
            for question, sample in zip(self._questions, samples, strict=True)
        ]


def build(config: SftConfig, services: Services) -> Sft:
    """Build the algorithm of `config`."""
    return Sft(config, services)
