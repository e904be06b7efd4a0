"""The weight map: one description of where every tensor of a Hugging Face checkpoint lies in the model.

It serves loading, saving, initialisation and, later, weight updates of a rollout engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `start`, `start + step`, … below `stop` of one dim."""

    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class Init:
    """How a tensor begins: normal with this standard deviation, or all one value."""

    kind: Literal["normal", "constant"]
    value: float
    """The standard deviation, or the constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightEntry:
    """One tensor of the checkpoint and the region of the parameter that holds it.

    Several entries may share a parameter (stacked experts, gate and up in one matrix); together they cover
    each parameter exactly once.
    """

    hf_name: str
    """Key in the checkpoint, `model.layers.0.mlp.experts.7.up_proj.weight`."""
    parameter: str
    """Qualified name of the parameter or persistent buffer in the model."""
    index: tuple[int | Span, ...] = ()
    """Selects the region, dim by dim from the first; the dims not named are whole."""
    transpose: bool = False
    """Whether the checkpoint stores the region's last two dims swapped."""
    init: Init

    def region(self, parameter: Tensor) -> Tensor:
        """The view of `parameter` that holds this tensor, in the checkpoint's orientation."""
        view = parameter[tuple(i if isinstance(i, int) else slice(i.start, i.stop, i.step) for i in self.index)]
        return view.transpose(-1, -2) if self.transpose else view


@dataclass(frozen=True, slots=True)
class WeightMap:
    """Every tensor of a model's checkpoint, in the order in which it is written."""

    entries: tuple[WeightEntry, ...]
    optional: frozenset[str] = frozenset()
    """Keys that a checkpoint may hold beside these and that mean nothing here (a tied head, say)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What this rank holds of a parameter or persistent buffer: a box of it."""

    tensor: Tensor
    """The box, a plain tensor; where a parameter has a master copy, of that."""
    shape: tuple[int, ...]
    """Of the whole."""
    start: tuple[int, ...]
    """Where the box begins in each dim."""
    writes: bool = True
    """Whether this rank is the first of those that hold the same box: one writes it for all of them."""

    @classmethod
    def whole(cls, tensor: Tensor) -> Part:
        """All of a tensor."""
        return cls(tensor=tensor, shape=tuple(tensor.shape), start=(0,) * tensor.dim())
