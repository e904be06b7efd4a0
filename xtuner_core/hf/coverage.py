"""A proof that a weight map's regions cover every parameter and persistent buffer exactly once.

It works on shapes alone, so a model of any size on the meta device is checked before memory is taken. A
region is a product of progressions, one a dim. Dim by dim, indices that the same regions contain are looked
at once, and so are layers of one layout: for 128 stacked experts that is some hundred steps.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from xtuner_core.contracts.weights import WeightEntry, WeightMap
from xtuner_core.errors import ContractError
from xtuner_core.hf.targets import named_tensors

Box = tuple[range, ...]
"""Indices of the first dims that a region has; the dims not named are whole."""
Memo = dict[tuple[tuple[int, ...], tuple[Box, ...]], tuple[int, int]]


def check_coverage(
    model: nn.Module, weight_map: WeightMap, *, plugin: str | None = None, whole: Mapping[str, Tensor] | None = None
) -> None:
    """Refuse a weight map that leaves a part of the model out, names one twice, or names what is not there.

    Tied parameters count once, whichever of their names the map uses.

    :param plugin: whose map it is, for the message.
    :param whole: tensors with the shapes of the undivided model, on the meta device, where the model's own are parts.
    :raises ContractError: with every parameter and key concerned.
    """
    own = named_tensors(model)
    tensors = own if whole is None else whole
    # Which tensors are tied the model tells, their shapes the wholes.
    tied = {name: id(own.get(name, tensor)) for name, tensor in tensors.items()}
    problems = _repeated(weight_map)
    boxes: dict[int, list[Box]] = defaultdict(list)
    for entry in weight_map.entries:
        try:
            tensor = tensors[entry.parameter]
            boxes[tied[entry.parameter]].append(_box(entry, tensor))
        except KeyError:
            problems.append(f"{entry.hf_name} lies in {entry.parameter}, which the model does not have")
        except ValueError as error:
            problems.append(f"{entry.hf_name} does not fit {entry.parameter}: {error}")
    if not problems:
        memo: Memo = {}
        gaps = [_gap(name, tensors[name], boxes[tied[name]], memo) for name in _once(tied)]
        problems = [gap for gap in gaps if gap]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ContractError(
            f"the weight map of {type(model).__name__} is wrong: {shown}",
            fix="correct weight_map() so that its entries cover each parameter and persistent buffer once",
            plugin=plugin,
        )


def _repeated(weight_map: WeightMap) -> list[str]:
    names = [entry.hf_name for entry in weight_map.entries]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    both = sorted(weight_map.optional & set(names))
    return [f"two entries are called {name}" for name in twice] + [
        f"{name} is an entry and optional at once" for name in both
    ]


def _once(tied: Mapping[str, int]) -> list[str]:
    seen: dict[int, str] = {}
    for name, tensor in tied.items():
        seen.setdefault(tensor, name)
    return list(seen.values())


def _box(entry: WeightEntry, tensor: Tensor) -> Box:
    if len(entry.index) > tensor.dim():
        raise ValueError(f"{len(entry.index)} indices for {tensor.dim()} dims")
    box: list[range] = []
    for size, item in zip(tensor.shape, entry.index, strict=False):
        chosen = range(item, item + 1) if isinstance(item, int) else range(item.start, item.stop, item.step)
        if chosen.step < 1 or chosen.start < 0 or chosen.stop > size or not chosen:
            raise ValueError(f"{item} is not within a dim of {size}")
        box.append(chosen)
    rest = tensor.dim() - sum(isinstance(item, int) for item in entry.index)
    if entry.transpose and rest < 2:
        raise ValueError(f"a region of {rest} dims cannot be transposed")
    return tuple(box)


def _gap(name: str, tensor: Tensor, boxes: Sequence[Box], memo: Memo) -> str | None:
    if not tensor.numel():
        return None
    fewest, most = _counts(tuple(tensor.shape), tuple(boxes), memo)
    if fewest == 1 == most:
        return None
    if not most:
        return f"{name} {list(tensor.shape)} is in no entry"
    return f"{name} {list(tensor.shape)} is covered " + ("in part" if fewest == 0 else "more than once")


def _counts(shape: tuple[int, ...], boxes: tuple[Box, ...], memo: Memo) -> tuple[int, int]:
    """How many boxes contain an element, at the least and at the most."""
    if not any(boxes):
        return len(boxes), len(boxes)
    if (shape, boxes) not in memo:
        holders: list[list[int]] = [[] for _ in range(shape[0])]
        for number, box in enumerate(boxes):
            for index in box[0] if box else range(shape[0]):
                holders[index].append(number)
        tails = {tuple(boxes[number][1:] for number in numbers) for numbers in map(tuple, holders)}
        found = [_counts(shape[1:], tail, memo) for tail in tails]
        memo[shape, boxes] = min(low for low, _ in found), max(high for _, high in found)
    return memo[shape, boxes]
