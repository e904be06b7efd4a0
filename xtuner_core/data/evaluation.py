"""Scores of held-out documents: loss by dataset, perplexity, bits per byte. T tokens of a pack, N datasets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, tee
from math import exp, log

import torch
from torch import Tensor

from xtuner_core.contracts.algorithm import Engine
from xtuner_core.contracts.batch import DATASET, Document, PackedBatch, pack
from xtuner_core.contracts.loss import TokenScores
from xtuner_core.data.held_out import HeldOut
from xtuner_core.data.packing import best_fit

PACKED_TOGETHER = 4096
"""Windows that are packed together, so that memory does not grow with the held-out data."""
LARGEST_EXPONENT = 700.0
"""Perplexity ends here: a float holds no more."""


def evaluate(engine: Engine, held_out: HeldOut, *, capacity: int, limit: int, overlap: float) -> dict[str, float]:
    """Score held-out documents. A target counts with its weight, once, in the context that its window holds.

    :param capacity: tokens of a pack.
    :param limit: tokens of a window at most.
    :param overlap: share of a window that the next one repeats as context.
    :return: `loss`, in nats for a unit of weight, and its exponential, `perplexity`; `loss.NAME` of each dataset where
        several were scored; where some are plain text, `bits_per_byte` of these: every token of theirs and the end of
        each document is a target, so that the bits are the length of a complete code.
    """
    sums_2N = torch.zeros(2, len(held_out.parts), dtype=torch.float64)
    asked, scored_too = tee(_packs(held_out.windows(limit, overlap), capacity))
    for scores, batch in zip(engine.score_all(asked), scored_too, strict=True):
        sums_2N += _sums(scores, batch, len(held_out.parts))
    scored = [(part, nll, weight) for part, (nll, weight) in zip(held_out.parts, sums_2N.T.tolist(), strict=True)]
    loss = sum(nll for _, nll, _ in scored) / (sum(weight for _, _, weight in scored) or 1.0)
    by_dataset = {f"loss.{part.name}": nll / weight for part, nll, weight in scored if weight}
    found = {"loss": loss, "perplexity": exp(min(loss, LARGEST_EXPONENT))}
    texts = [(nll, part.utf8_bytes) for part, nll, weight in scored if weight and part.utf8_bytes]
    if texts:
        found["bits_per_byte"] = sum(nll for nll, _ in texts) / log(2) / sum(size for _, size in texts)
    return found | (by_dataset if len(by_dataset) > 1 else {})


def _packs(documents: Iterable[Document], capacity: int) -> Iterator[PackedBatch]:
    waiting = iter(documents)
    while together := list(islice(waiting, PACKED_TOGETHER)):
        for members in best_fit([len(document) for document in together], capacity):
            yield pack([together[index] for index in members])


def _sums(scores: TokenScores, batch: PackedBatch, datasets: int) -> Tensor:
    """Weighted negative log-likelihood and weights of a pack by dataset: float64 [2, N] on the CPU."""
    nll_T = -scores.log_probs_T.double().cpu()
    weights_T = batch.weights.double() * (batch.labels >= 0)
    # A score without weight may be anything; a product with 0 would make a NaN of an infinite one.
    weighted_T = torch.where(weights_T > 0, nll_T * weights_T, 0.0)
    dataset_T = torch.repeat_interleave(batch.fields[DATASET].tensor, torch.tensor(batch.lengths))
    return torch.zeros(2, datasets, dtype=torch.float64).index_add(1, dataset_T, torch.stack([weighted_T, weights_T]))
