"""The control experiment: labels permuted within each document, so that there is nothing to learn but frequencies."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import torch

from xtuner_core.contracts.batch import PackedBatch


def shuffled(batch: PackedBatch, key: tuple[int, ...]) -> PackedBatch:
    """Permute the labels of each document, and the weights with them; the filler stays.

    :param key: what the permutations depend on.
    """
    random = torch.Generator().manual_seed(int.from_bytes(sha256(repr(key).encode()).digest()[:7], "little"))
    order, start = [], 0
    for length in batch.lengths[: batch.documents]:
        order.append(start + torch.randperm(length, generator=random))
        start += length
    order_T = torch.cat([*order, torch.arange(start, len(batch.token_ids))])
    return replace(batch, labels=batch.labels[order_T], weights=batch.weights[order_T])
