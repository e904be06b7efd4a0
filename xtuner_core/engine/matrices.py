"""Which matrices lie fused in a parameter: what the checkpoint keeps apart, by the model's weight map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any, cast

from torch import Tensor, nn

from xtuner_core.contracts.model import Model
from xtuner_core.contracts.weights import Span, WeightEntry
from xtuner_core.hf.targets import named_tensors

Region = tuple[Span, Span]


def fused_matrices(model: nn.Module, whole: Mapping[str, Tensor] | None = None) -> dict[str, tuple[Region, ...]]:
    """Rows and columns of the matrices in each parameter that holds several, by the parameter's first name.

    A parameter whose last two dims are divided in the same way all over its stack of matrices is told; one that is
    divided unevenly, or by something that is no matrix, counts as whole.

    :param whole: tensors of the undivided model by name, where ranks hold parts of it; None means the model's own.
    """
    tensors = named_tensors(model)
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    shapes = {name: tuple(tensor.shape) for name, tensor in (whole or tensors).items()}
    counts: dict[str, Counter[Region | None]] = {}
    for entry in cast("Model", model).weight_map().entries:
        tensor = tensors.get(entry.parameter)
        name = first.get(id(tensor))
        if tensor is not None and name is not None and tensor.dim() >= 2:
            region, number = _region(entry, shapes[entry.parameter])
            counts.setdefault(name, Counter())[region] += number
    return {name: found for name, count in counts.items() if (found := _even(count, shapes[name][:-2]))}


def _region(entry: WeightEntry, shape: tuple[int, ...]) -> tuple[Region | None, int]:
    """The last two dims of an entry's region, None where they are no matrix; and of how many matrices of the stack."""
    whole = [Span(0, size) for size in shape]
    index: list[int | Span] = [*entry.index, *whole[len(entry.index) :]]
    stacked = prod(1 if isinstance(i, int) else len(range(i.start, i.stop, i.step)) for i in index[:-2])
    rows, columns = index[-2:]
    if isinstance(rows, int) or isinstance(columns, int):
        return None, stacked
    return (rows, columns), stacked


def _even(counts: Mapping[Any, int], stack: tuple[int, ...]) -> tuple[Region, ...]:
    """The regions, where there are several and each of them is in every matrix of the stack."""
    even = None not in counts and all(number == prod(stack) for number in counts.values())
    return tuple(counts) if even and len(counts) > 1 else ()
