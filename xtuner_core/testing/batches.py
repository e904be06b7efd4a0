"""What a well-formed micro-batch is, and when two are the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from xtuner_core.contracts.batch import IGNORE, Axis, PackedBatch


def check_batch(batch: PackedBatch, vocabulary: int) -> None:
    """Assert that a micro-batch keeps the contract of `PackedBatch`, on the CPU.

    :param vocabulary: ids run below it.
    """
    tokens = len(batch.token_ids)
    assert batch.token_ids.device.type == "cpu"
    assert (batch.token_ids.dtype, batch.labels.dtype, batch.weights.dtype) == (torch.int64, torch.int64, torch.float32)
    assert batch.labels.shape == batch.weights.shape == batch.token_ids.shape == (tokens,)
    assert batch.positions.shape[-1] == tokens
    assert 0 <= int(batch.token_ids.min()) <= int(batch.token_ids.max()) < vocabulary
    labelled_T = batch.labels != IGNORE
    assert ((batch.labels >= 0) & (batch.labels < vocabulary))[labelled_T].all()
    assert batch.weights.isfinite().all()
    _check_boundaries(batch, tokens)
    _check_filler(batch, tokens)
    for name, field in batch.fields.items():
        if field.axis is Axis.TOKEN:
            assert len(field.tensor) == tokens, name
        if field.axis is Axis.DOCUMENT:
            assert len(field.tensor) == batch.documents, name


def _check_boundaries(batch: PackedBatch, tokens: int) -> None:
    assert min(batch.lengths) > 0
    assert sum(batch.lengths) == tokens
    bounds = torch.tensor([0, *batch.lengths]).cumsum(0).int()
    assert batch.cu_seqlens.dtype == torch.int32
    assert torch.equal(batch.cu_seqlens[: len(bounds)], bounds)
    assert (batch.cu_seqlens[len(bounds) :] == tokens).all()


def _check_filler(batch: PackedBatch, tokens: int) -> None:
    assert 0 <= batch.filler < tokens
    assert batch.filler in (0, batch.lengths[-1])
    assert (batch.labels[batch.tokens :] == IGNORE).all()
    assert not batch.weights[batch.tokens :].any()


def same_batches(one: Sequence[Sequence[PackedBatch]], other: Sequence[Sequence[PackedBatch]]) -> bool:
    """Whether two sequences of global batches are equal, tensor by tensor."""
    if [len(step) for step in one] != [len(step) for step in other]:
        return False
    pairs = [pair for steps in zip(one, other, strict=True) for pair in zip(*steps, strict=True)]
    return all(_same(a, b) for a, b in pairs)


def _same(a: PackedBatch, b: PackedBatch) -> bool:
    names = ("token_ids", "labels", "weights", "positions", *a.fields)
    plain = (a.lengths, a.filler, a.media, a.fields.keys()) == (b.lengths, b.filler, b.media, b.fields.keys())
    return plain and all(torch.equal(a.named(name), b.named(name)) for name in names)
