"""PackedBatch: what a micro-batch is. Documents lie one after the other; there is no padding mask anywhere.

T tokens of the pack, D documents (the filler at the tail is not one), n rows of positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from torch import Tensor

IGNORE = -100
"""Label of a position at which nothing is to be predicted."""


DATASET = "dataset"
"""Named field, int64 [D]: which of the run's datasets a document is from, in the order of its picks. Where a batch
has it, the engine tells the loss of each dataset apart."""


class Axis(StrEnum):
    """What the first dim of a named field counts."""

    TOKEN = "token"
    DOCUMENT = "document"
    MEDIA = "media"
    PATCH = "patch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A named tensor that travels with a document or a pack.

    Packing concatenates it along dim 0, splitting cuts it there, and neither knows what it means.
    """

    tensor: Tensor
    axis: Axis
    pad: float | int | bool = 0
    """Value of the filler's rows; only token fields have any."""
    split: bool = True
    """Whether a split over ranks cuts it (True) or gives every rank the whole (False)."""


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """The span of tokens that one image, video or sound fills."""

    modality: str
    item: int
    """Index along the media fields' dim 0."""
    start: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One sample, labels and weights made before it is packed. All tensors on the CPU."""

    token_ids: Tensor
    """int64 [t]."""
    labels: Tensor
    """int64 [t], already shifted: the token that follows; `IGNORE` where nothing is predicted."""
    weights: Tensor
    """float32 [t]: what a position counts in the loss; 0 is not trained on."""
    positions: Tensor | None = None
    """int64 or float [t] or [n, t]; None counts from 0."""
    fields: Mapping[str, Field] = field(default_factory=dict)
    media: tuple[MediaSpan, ...] = ()

    def __len__(self) -> int:
        return self.token_ids.shape[0]

    @classmethod
    def of(cls, token_ids: Sequence[int] | Tensor) -> Document:
        """Plain text: every token but the first is predicted from those before it, with weight 1."""
        ids = torch.as_tensor(token_ids, dtype=torch.int64)
        ignore = torch.full((1,), IGNORE, dtype=torch.int64)
        labels = torch.cat([ids[1:], ignore]) if len(ids) else ids
        return cls(token_ids=ids, labels=labels, weights=(labels != IGNORE).float())


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPart:
    """Which tokens of a pack a rank holds, where a sequence is spread over ranks."""

    start: int
    """Of the pack's first token that is here."""
    total: int
    """Tokens of the whole pack, filler included."""
    add: Callable[[Tensor], Tensor]
    """Sum of a tensor over the ranks that hold the pack's parts, without gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """Documents packed into one sequence of tokens, the last of which may be filler.

    T tokens are here: all of them, or with `part` a rank's share. Boundaries, lengths and filler are those of the
    whole pack in either case, and so are fields of documents.
    """

    token_ids: Tensor
    """int64 [T]."""
    labels: Tensor
    """int64 [T], already shifted; `IGNORE` where nothing is predicted."""
    weights: Tensor
    """float32 [T]; 0 in the filler."""
    positions: Tensor
    """[T] or [n, T]."""
    cu_seqlens: Tensor
    """int32 [B + 1]: boundaries, the filler's included, padded to a bucketed length by repeating T."""
    lengths: tuple[int, ...]
    """Tokens of each document, the filler's last where there is any; they sum to T. On the host, so that
    no kernel launch waits for the device."""
    filler: int = 0
    """Tokens at the tail that fill up the pack: a document of weight 0, outside all statistics."""
    fields: Mapping[str, Field] = field(default_factory=dict)
    media: tuple[MediaSpan, ...] = ()
    part: TokenPart | None = None
    """Where only some of the pack's tokens are here, which; None where all are."""

    @property
    def tokens(self) -> int:
        """Tokens that are here, without the filler; they come first."""
        here = self.token_ids.shape[0]
        return here - self.filler if self.part is None else min(max(self.total - self.filler - self.start, 0), here)

    @property
    def start(self) -> int:
        """Of the first token that is here, in the pack."""
        return 0 if self.part is None else self.part.start

    @property
    def total(self) -> int:
        """Tokens of the whole pack, filler included."""
        return self.token_ids.shape[0] if self.part is None else self.part.total

    @property
    def documents(self) -> int:
        """Documents without the filler."""
        return len(self.lengths) - (self.filler > 0)

    def named(self, name: str) -> Tensor:
        """A tensor of the batch by name: one of its own, or a named field's.

        :raises KeyError: the batch has no field of this name.
        """
        if name in ("token_ids", "labels", "weights", "positions"):
            return getattr(self, name)  # type: ignore[no-any-return]
        return self.fields[name].tensor

    def document_ids(self) -> Tensor:
        """Index of the document that each token here is of, the filler's the last: int64 [T], without waiting."""
        positions = torch.arange(self.start, self.start + self.token_ids.shape[0], device=self.cu_seqlens.device)
        return torch.searchsorted(self.cu_seqlens.long(), positions, right=True) - 1

    def document_sums(self, values_T: Tensor) -> Tensor:
        """Add up within each document, filler included: [B], over all ranks that hold tokens of it.

        Where the sequence is spread over ranks there is no gradient: divide a token by its document's sum, and the
        shares of all ranks add up.
        """
        sums_B = values_T.new_zeros(len(self.lengths)).index_add(0, self.document_ids(), values_T)
        return sums_B if self.part is None else self.part.add(sums_B.detach())

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch with every tensor on `device`; boundaries stay known to the host."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in _TENSORS}
        fields = {
            name: replace(item, tensor=item.tensor.to(device, non_blocking=True)) for name, item in self.fields.items()
        }
        return replace(self, **moved, fields=fields)


_TENSORS = ("token_ids", "labels", "weights", "positions", "cu_seqlens")


def pack(documents: Sequence[Document], *, capacity: int | None = None, bucket: int = 16) -> PackedBatch:
    """Lay documents one after the other.

    :param documents: at least one, each of at least one token, all with the same named fields.
    :param capacity: fill up to this many tokens with a document of weight 0; None adds no filler.
    :param bucket: `cu_seqlens` is padded to a multiple of this, so that shapes repeat between packs.
    """
    lengths = [len(document) for document in documents]
    total = sum(lengths)
    filler = 0 if capacity is None else capacity - total
    assert min(lengths, default=0) > 0, "a pack holds documents of at least one token"
    assert filler >= 0, (lengths, capacity)
    positions = _positions(documents, filler)
    bounds = torch.tensor([0, *lengths] + [filler] * (filler > 0), dtype=torch.int32).cumsum(0, dtype=torch.int32)
    spare = -(len(bounds) - 1) % bucket
    return PackedBatch(
        token_ids=_filled([d.token_ids for d in documents], filler, 0),
        labels=_filled([d.labels for d in documents], filler, IGNORE),
        weights=_filled([d.weights for d in documents], filler, 0.0),
        positions=positions,
        cu_seqlens=torch.cat([bounds, bounds[-1:].expand(spare)]),
        lengths=(*lengths, filler) if filler else tuple(lengths),
        filler=filler,
        fields=_packed_fields(documents, filler),
        media=_packed_media(documents, lengths),
    )


def _filled(parts: Sequence[Tensor], filler: int, value: float | int | bool) -> Tensor:
    first = parts[0]
    tail = first.new_full((filler, *first.shape[1:]), value)
    return torch.cat([*parts, tail])


def _positions(documents: Sequence[Document], filler: int) -> Tensor:
    given = [torch.arange(len(d)) if d.positions is None else d.positions for d in documents]
    tail = torch.arange(filler).expand(*given[0].shape[:-1], filler)
    return torch.cat([*given, tail.to(given[0].dtype)], dim=-1)


def _packed_fields(documents: Sequence[Document], filler: int) -> dict[str, Field]:
    packed: dict[str, Field] = {}
    for name, first in documents[0].fields.items():
        parts = [document.fields[name].tensor for document in documents]
        rows = filler if first.axis is Axis.TOKEN else 0
        packed[name] = replace(first, tensor=_filled(parts, rows, first.pad))
    return packed


def _packed_media(documents: Sequence[Document], lengths: Sequence[int]) -> tuple[MediaSpan, ...]:
    spans: list[MediaSpan] = []
    start, items = 0, 0
    for document, length in zip(documents, lengths, strict=True):
        spans += [MediaSpan(s.modality, items + s.item, start + s.start, s.length) for s in document.media]
        items += 1 + max((s.item for s in document.media), default=-1)
        start += length
    return tuple(spans)
