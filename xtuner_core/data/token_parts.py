"""Packs whose tokens are spread over ranks: filled up until they divide, cut, and packs of filler alone.

T tokens of a pack, B documents with the filler.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor

from xtuner_core.contracts.batch import IGNORE, Axis, Field, PackedBatch, TokenPart

BUCKET = 16
"""`cu_seqlens` grows in steps of this, so that shapes repeat between packs."""


def padded(batch: PackedBatch, multiple: int) -> PackedBatch:
    """The pack with filler added until `multiple` divides its tokens; itself where it does already.

    :param batch: a whole pack.
    """
    more = -batch.total % multiple
    if more == 0:
        return batch
    assert batch.part is None, "a pack is filled up before it is cut"
    filler = batch.filler + more
    return replace(
        batch,
        token_ids=_filled(batch.token_ids, more, 0),
        labels=_filled(batch.labels, more, IGNORE),
        weights=_filled(batch.weights, more, 0),
        positions=_positions(batch.positions, batch.tokens, filler),
        cu_seqlens=_boundaries(batch.cu_seqlens, batch.documents, batch.total + more),
        lengths=(*batch.lengths[: batch.documents], filler),
        filler=filler,
        fields={name: _filled_field(field, more) for name, field in batch.fields.items()},
    )


def split(batch: PackedBatch, count: int) -> list[PackedBatch]:
    """As many packs, each with its consecutive share of the tokens.

    Labels were shifted when documents were made, so nothing is lost at a cut. Token fields are cut unless they say
    otherwise; fields of documents and media go to every part whole, and so do boundaries and lengths. What adds up
    over the parts is set where a part arrives.

    :param batch: a whole pack of which `count` divides the tokens.
    """
    assert batch.part is None, "a pack is cut once"
    assert batch.total % count == 0, (batch.total, count)
    each = batch.total // count
    return [_part(batch, start, each) for start in range(0, batch.total, each)]


def empty(tokens: int, like: PackedBatch) -> PackedBatch:
    """A pack of filler alone, which weighs nothing and has no document: what a rank without data trains on.

    :param like: whose named fields and rows of positions it has.
    """
    device = like.token_ids.device
    return PackedBatch(
        token_ids=_filled(like.token_ids[:0], tokens, 0),
        labels=_filled(like.labels[:0], tokens, IGNORE),
        weights=_filled(like.weights[:0], tokens, 0),
        positions=_positions(like.positions, 0, tokens),
        cu_seqlens=torch.tensor([0] + [tokens] * BUCKET, dtype=torch.int32, device=device),
        lengths=(tokens,),
        filler=tokens,
        fields={name: _emptied_field(field, tokens) for name, field in like.fields.items()},
    )


def _part(batch: PackedBatch, start: int, each: int) -> PackedBatch:
    here = slice(start, start + each)
    return replace(
        batch,
        token_ids=batch.token_ids[here],
        labels=batch.labels[here],
        weights=batch.weights[here],
        positions=batch.positions[..., here],
        fields={name: _cut_field(field, here) for name, field in batch.fields.items()},
        part=TokenPart(start=start, total=batch.total, add=_refuse),
    )


def _refuse(tensor: Tensor) -> NoReturn:
    raise AssertionError("this part of a pack has not been joined to the others")


def _filled(tensor: Tensor, rows: int, value: float | int | bool) -> Tensor:
    return torch.cat([tensor, tensor.new_full((rows, *tensor.shape[1:]), value)])


def _filled_field(field: Field, rows: int) -> Field:
    return replace(field, tensor=_filled(field.tensor, rows, field.pad)) if field.axis is Axis.TOKEN else field


def _emptied_field(field: Field, tokens: int) -> Field:
    return _filled_field(replace(field, tensor=field.tensor[:0]), tokens)


def _cut_field(field: Field, here: slice) -> Field:
    cuts = field.axis is Axis.TOKEN and field.split
    return replace(field, tensor=field.tensor[here]) if cuts else field


def _positions(positions: Tensor, tokens: int, filler: int) -> Tensor:
    """Positions of the first `tokens`, and the filler's, which count from 0."""
    tail = torch.arange(filler, device=positions.device, dtype=positions.dtype)
    return torch.cat([positions[..., :tokens], tail.expand(*positions.shape[:-1], filler)], dim=-1)


def _boundaries(cu_seqlens: Tensor, documents: int, total: int) -> Tensor:
    """Boundaries of the documents and of the filler behind them, as many as before where they suffice."""
    slots = max(len(cu_seqlens), documents + 2)
    if slots > len(cu_seqlens):
        slots += -(slots - 1) % BUCKET
    return _filled(cu_seqlens[: documents + 1], slots - documents - 1, total)
