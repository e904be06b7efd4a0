"""Continuing prompts with a model of the contract and a key-value cache.

B live sequences, T new tokens of all of them, V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn

from xtuner_core.contracts.batch import IGNORE, PackedBatch
from xtuner_core.contracts.model import LanguageHead, ModelOutput
from xtuner_core.contracts.sampling import Sample, Sampling
from xtuner_core.engine.cache import DenseCache
from xtuner_core.engine.draw import distribution, draw, uniform
from xtuner_core.errors import UsageError


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    device: torch.device | str,
    agree: Callable[[Tensor], Tensor] = _itself,
) -> list[Sample]:
    """Continue every prompt until a stop token or `max_tokens`.

    The prompts go through the model as one pack; then all live sequences decode together, a token each, and
    leave as they finish. Draws happen on the CPU in float64 and depend on (seed, prompt's index, position)
    alone; logits differ with the batch by rounding only.

    :param model: of the contract, on `device`; its training flags are restored at the end.
    :param agree: gives what is drawn on the rank that leads, where several generate the same: their logits may differ
        by rounding, and they must leave the loop together.
    :returns: one sample a prompt, in their order. At temperature 0 log-probabilities are 0: draws are sure.
    :raises UsageError: a prompt holds no tokens.
    """
    _refuse_empty(prompts)
    sequences = [_Sequence(index, list(prompt), len(prompt)) for index, prompt in enumerate(prompts)]
    cache = DenseCache(len(prompts), device)
    live = list(sequences)
    with _evaluating(model), torch.no_grad():
        while live:
            _extend(live, agree(_next_logits(model, live, cache, device)), sampling)
            rows = [row for row, sequence in enumerate(live) if not sequence.stop]
            if len(rows) < len(live):
                cache.keep(rows)
                live = [live[row] for row in rows]
    return [sequence.sample() for sequence in sequences]


@dataclass(slots=True)
class _Sequence:
    index: int
    token_ids: list[int]
    prompt_length: int
    cached: int = 0
    log_probs: list[float] = field(default_factory=list)
    stop: str = ""

    def sample(self) -> Sample:
        new = tuple(self.token_ids[self.prompt_length :])
        return Sample(token_ids=new, log_probs=tuple(self.log_probs), stop=self.stop)


def _refuse_empty(prompts: Sequence[Sequence[int]]) -> None:
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise UsageError(
                f"prompt {index} holds no tokens, so there is nothing to continue",
                fix="begin it with at least one token, the end-of-text token for instance",
            )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in training:
            module.training = flag


def _next_logits(model: nn.Module, live: Sequence[_Sequence], cache: DenseCache, device: torch.device | str) -> Tensor:
    """Compute logits of the token that follows each live sequence: float64 [B, V] on the CPU."""
    lengths = [len(sequence.token_ids) - sequence.cached for sequence in live]
    cache.begin(lengths)
    output: ModelOutput = model(_pack(live, lengths).to(device), cache=cache)
    for sequence in live:
        sequence.cached = len(sequence.token_ids)
    hidden_TD = next(p.hidden_TD for p in output.predictions if p.name == "main")
    last_B = torch.tensor(list(accumulate(lengths)), device=device) - 1
    logits_BV = cast(LanguageHead, model.head)(hidden_TD[last_B])
    assert isinstance(logits_BV, Tensor)
    return logits_BV.to("cpu").double()


def _pack(live: Sequence[_Sequence], lengths: Sequence[int], bucket: int = 16) -> PackedBatch:
    """Pack the tokens that the cache does not hold yet, with their true positions and nothing to predict."""
    tokens = sum(lengths)
    bounds = [0, *accumulate(lengths)]
    bounds += [tokens] * (-len(lengths) % bucket)
    return PackedBatch(
        token_ids=torch.tensor([token for s in live for token in s.token_ids[s.cached :]]),
        labels=torch.full((tokens,), IGNORE),
        weights=torch.zeros(tokens),
        positions=torch.tensor([n for s in live for n in range(s.cached, len(s.token_ids))]),
        cu_seqlens=torch.tensor(bounds, dtype=torch.int32),
        lengths=tuple(lengths),
    )


def _extend(live: Sequence[_Sequence], logits_BV: Tensor, sampling: Sampling) -> None:
    uniforms = [uniform(sampling.seed, sequence.index, len(sequence.token_ids)) for sequence in live]
    log_probs_BV = distribution(logits_BV, sampling)
    chosen_B = draw(log_probs_BV, torch.tensor(uniforms, dtype=torch.float64))
    drawn_B = log_probs_BV.gather(-1, chosen_B[:, None])[:, 0]
    for sequence, token, log_prob in zip(live, chosen_B.tolist(), drawn_B.tolist(), strict=True):
        sequence.token_ids.append(token)
        sequence.log_probs.append(log_prob)
        if token in sampling.stop_token_ids:
            sequence.stop = "stop"
        elif len(sequence.log_probs) == sampling.max_tokens:
            sequence.stop = "length"
