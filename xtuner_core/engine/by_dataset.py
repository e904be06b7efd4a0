"""The loss of each of the run's datasets, beside that of all of them.

T tokens, B documents with the filler, N datasets.

It is the run's own loss with the weights of every other dataset set to 0, so that it holds for any loss and reduction,
and the mean over datasets, each counted by its share of the denominator, is the loss of the whole step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from xtuner_core.contracts.batch import DATASET, PackedBatch
from xtuner_core.contracts.loss import Loss, TokenScores


def denominators(loss: Loss, batches: Sequence[PackedBatch], names: Sequence[str]) -> dict[str, float]:
    """Sum each dataset's denominator over a step's micro-batches, which are still on the host.

    :param names: of the run's datasets; below two there is nothing to tell apart.
    :return: by name; none where a batch does not say which dataset its documents are from.
    """
    if len(names) < 2 or any(DATASET not in batch.fields for batch in batches):
        return {}
    sums = [0.0] * len(names)
    for batch in batches:
        dataset_T = _of_tokens(batch)
        for index in sorted(set(batch.fields[DATASET].tensor.tolist())):
            sums[index] += float(loss.denominator(_only(batch, dataset_T, index)))
    return dict(zip(names, sums, strict=True))


@torch.no_grad()
def losses(loss: Loss, scores: TokenScores, batch: PackedBatch, denominators: Sequence[float]) -> Tensor | None:
    """One micro-batch's share of the loss of each dataset: float [N], or None where they are not told apart.

    :param denominators: of the whole step.
    """
    if not denominators:
        return None
    dataset_T = _of_tokens(batch)
    totals = [loss.total(scores, _only(batch, dataset_T, index)) for index in range(len(denominators))]
    # A dataset without weights has a sum of zero, which no denominator changes.
    return torch.stack([total / (whole or 1.0) for total, whole in zip(totals, denominators, strict=True)])


def by_name(denominators: Mapping[str, float], losses: Sequence[float]) -> dict[str, float]:
    """Name the losses of a step; a dataset of which it trained on nothing has none."""
    named = zip(denominators.items(), losses, strict=True)
    return {name: loss for (name, whole), loss in named if whole}


def _of_tokens(batch: PackedBatch) -> Tensor:
    """Dataset of each token, -1 in the filler: int64 [T], made without waiting for the device."""
    dataset_B = torch.nn.functional.pad(batch.fields[DATASET].tensor, (0, int(batch.filler > 0)), value=-1)
    return dataset_B[batch.document_ids()]


def _only(batch: PackedBatch, dataset_T: Tensor, index: int) -> PackedBatch:
    return replace(batch, weights=batch.weights * (dataset_T == index))
