"""Where a tensor of the checkpoint and what a rank holds meet: boxes, and the bytes that they are in a file.

Every region of a weight map and every part of a rank is a product of ranges, one a dim, so what they have in common is
one too: a view of the rank's tensor, and slices of the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor, nn

from xtuner_core.contracts.weights import Part, Span, WeightEntry
from xtuner_core.hf.targets import named_tensors


@dataclass(frozen=True, slots=True)
class Piece:
    """What a rank holds of one tensor of a checkpoint; never empty."""

    tensor: Tensor
    """View of the rank's tensor, in the checkpoint's orientation, without gradient."""
    index: tuple[slice, ...]
    """The same box in the checkpoint's tensor: `start` and `stop` of each dim, no steps."""

    @classmethod
    def of(cls, part: Part) -> Piece | None:
        """A part of a tensor that lies in a file as it is; None where it is empty."""
        index = tuple(slice(at, at + size) for at, size in zip(part.start, part.tensor.shape, strict=True))
        return cls(part.tensor.detach(), index) if part.tensor.numel() else None


def piece_of(entry: WeightEntry, part: Part) -> Piece | None:
    """What a part holds of an entry's tensor; None where they do not meet.

    :param entry: one whose index fits the whole of the part (`targets.region` refuses the others).
    """
    local: list[int | slice] = []
    index: list[slice] = []
    rest = [Span(0, size) for size in part.shape[len(entry.index) :]]
    for item, start, size in zip([*entry.index, *rest], part.start, part.tensor.shape, strict=True):
        if isinstance(item, int):
            if not start <= item < start + size:
                return None
            local.append(item - start)
            continue
        first, last = _counts(item, start, start + size)
        if first >= last:
            return None
        begin = item.start + first * item.step - start
        local.append(slice(begin, begin + (last - first - 1) * item.step + 1, item.step))
        index.append(slice(first, last))
    view = part.tensor.detach()[tuple(local)]
    if entry.transpose:
        view, index = view.transpose(-1, -2), [*index[:-2], index[-1], index[-2]]
    return Piece(view, tuple(index))


def parts_of(model: nn.Module) -> dict[str, Part]:
    """A model's own parameters and persistent buffers, as a process that has them whole holds them."""
    return {name: Part.whole(tensor) for name, tensor in named_tensors(model).items()}


def wholes_of(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """Tensors on the meta device with the shapes of the wholes, by name."""
    return {name: torch.empty(part.shape, dtype=part.tensor.dtype, device="meta") for name, part in parts.items()}


def runs(index: Sequence[slice], shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The elements of a box as they lie in a row-major tensor of `shape`: first one and number of each run.

    The runs are in the box's own row-major order, and as long as can be.
    """
    sizes = [each.stop - each.start for each in index]
    # The last dim that is taken in part ends the runs: those behind it are whole.
    inner = next((dim for dim in reversed(range(len(shape))) if sizes[dim] != shape[dim]), 0)
    strides = [prod(shape[dim + 1 :]) for dim in range(len(shape))]
    length = prod(sizes[inner:])
    offset = index[inner].start * strides[inner] if index else 0
    for place in product(*(range(each.start, each.stop) for each in index[:inner])):
        yield sum(at * stride for at, stride in zip(place, strides, strict=False)) + offset, length


def _counts(span: Span, start: int, stop: int) -> tuple[int, int]:
    """Which of the span's rows, counted from 0, lie from `start` to below `stop`."""
    rows = len(range(span.start, span.stop, span.step))
    first, last = (min(max(-((span.start - edge) // span.step), 0), rows) for edge in (start, stop))
    return first, last
