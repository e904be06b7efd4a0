"""What a rank holds of each parameter: told by the strategies as they apply themselves, asked by everyone after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from xtuner_core.contracts.parallelism import Ranks
from xtuner_core.contracts.weights import Part
from xtuner_core.hf.targets import named_tensors
from xtuner_core.views import Views


@dataclass(frozen=True, slots=True)
class Cut:
    """A parameter's dim, divided among the ranks along these axes."""

    dim: int
    axes: tuple[str, ...]


@dataclass(slots=True)
class Placement:
    """What became of one parameter."""

    cuts: list[Cut] = field(default_factory=list)
    """In the order in which they were made."""
    held: set[str] = field(default_factory=set)
    """Axes along which one rank alone has the parameter, whole."""
    summed: set[str] = field(default_factory=set)
    """Axes over which its gradient is a sum when the backward pass returns."""
    cast: bool = False

    def axes(self) -> set[str]:
        """Every axis that was told of."""
        return self.held | self.summed | self.divided()

    def divided(self) -> set[str]:
        """Axes along which ranks hold different parts."""
        return {axis for cut in self.cuts for axis in cut.axes} | self.held


class RankLayout:
    """Implements `contracts.parallelism.Layout`.

    :param rank: whose parts are meant.
    """

    def __init__(self, views: Views, rank: int) -> None:
        self.views, self.rank = views, rank
        self.whole: dict[str, Tensor] = {}
        """Parameters and persistent buffers by name as they are on one rank, on the meta device."""
        self._first: dict[str, str] = {}
        """The first name of what bears several: tied parameters are one."""
        self._placements: dict[str, Placement] = {}

    def begin(self, model: nn.Module) -> None:
        """Take note of the undivided model, which is on the meta device."""
        tensors, first = named_tensors(model), dict[int, str]()
        self.whole = {name: tensor.detach() for name, tensor in tensors.items()}
        self._first = {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}

    # ── what strategies tell ───────────────────────────────────────────────────────────────────────────────────

    def split(self, name: str, dim: int, *axes: str) -> None:
        """The parameter now holds this rank's part along `dim`."""
        self._of(name).cuts.append(Cut(dim, axes))

    def held(self, name: str, *axes: str) -> None:
        """Of the ranks along these axes this one alone has the parameter."""
        self._of(name).held.update(axes)

    def summed(self, name: str, *axes: str) -> None:
        """The parameter's gradient is summed over these axes already."""
        self._of(name).summed.update(axes)

    def cast(self, name: str) -> None:
        """The strategy casts the parameter by itself."""
        self._of(name).cast = True

    # ── what the engine asks ───────────────────────────────────────────────────────────────────────────────────

    def is_cast(self, name: str) -> bool:
        """Whether a strategy casts the parameter to the compute dtype by itself."""
        return self._found(name).cast

    def unsummed(self, name: str) -> tuple[str, ...]:
        """Axes over which the engine still has to sum the parameter's gradient, outermost first."""
        place = self._found(name)
        done = place.divided() | place.summed
        axes = self.views.axes[self._view(place)]
        return tuple(a.name for a in axes if a.size > 1 and a.work != "same" and a.name not in done)

    def replicas(self, name: str) -> int:
        """How many ranks hold the same part of it."""
        place = self._found(name)
        axes = self.views.axes[self._view(place)]
        return self.views.size(*(axis.name for axis in axes if axis.name not in place.divided()))

    def cuts(self, name: str) -> tuple[Cut, ...]:
        """How it is divided, in the order in which the cuts were made; those among one rank left out."""
        place = self._found(name)
        return tuple(cut for cut in place.cuts if self.views.size(*cut.axes) > 1)

    def part(self, name: str, tensor: Tensor) -> Part:
        """This rank's part of a tensor of the model.

        :param tensor: the parameter or buffer of that name, or a tensor that lies over it (a master copy).
        """
        shape = tuple(self.whole[name].shape)
        start, size = [0] * len(shape), list(shape)
        for cut in self.cuts(name):
            begin, length = chunk(
                size[cut.dim], self.views.size(*cut.axes), self.views.coordinate(self.rank, *cut.axes)
            )
            start[cut.dim] += begin
            size[cut.dim] = length
        mine = local(tensor).detach()
        assert tuple(mine.shape) == tuple(size), f"{name}: told {tuple(size)}, holds {tuple(mine.shape)}"
        return Part(tensor=mine, shape=shape, start=tuple(start), writes=self._writes(name))

    def parts(self, model: nn.Module, over: Mapping[str, Tensor] | None = None) -> dict[str, Part]:
        """Parts of all parameters and persistent buffers that are here, by name.

        :param over: tensors that take the place of parameters, by name.
        """
        tensors = {**named_tensors(model), **(over or {})}
        return {name: self.part(name, tensor) for name, tensor in tensors.items()}

    def _writes(self, name: str) -> bool:
        place = self._found(name)
        view = self._view(place)
        at = self.views.coordinates(self.rank, view)
        return all(coordinate == 0 for axis, coordinate in at.items() if axis not in place.divided())

    def _of(self, name: str) -> Placement:
        assert name in self.whole, f"the model has no parameter {name}"
        return self._placements.setdefault(self._first[name], Placement())

    def _found(self, name: str) -> Placement:
        return self._placements.get(self._first.get(name, name), Placement())

    def _view(self, place: Placement) -> str:
        return self.views.view_of(*place.axes())


def chunk(total: int, count: int, place: int) -> tuple[int, int]:
    """Where the `place`-th of `count` parts of a dim begins, and how long it is: as `torch.chunk` cuts."""
    each = -(-total // count)
    start = min(place * each, total)
    return start, min(each, total - start)


def local(tensor: Tensor) -> Tensor:
    """The plain tensor that a rank holds of it: the same memory, without gradient; a plain one itself."""
    # Asked this way, because importing DTensor costs a lone rank half a second.
    to_local = getattr(tensor, "to_local", None)
    found: Tensor = tensor if to_local is None else tensor.detach().to_local()  # type: ignore[attr-defined]
    return found


def gathered(tensor: Tensor, total: int, dim: int, group: ProcessGroup, count: int) -> Tensor:
    """Put the parts of `count` ranks along `dim` together again; a collective.

    :param total: entries of the dim when it is whole.
    """
    each = -(-total // count)
    padded = tensor.new_zeros([*tensor.shape[:dim], each, *tensor.shape[dim + 1 :]])
    padded.narrow(dim, 0, tensor.shape[dim]).copy_(tensor)
    found = [torch.empty_like(padded) for _ in range(count)]
    dist.all_gather(found, padded, group=group)
    return torch.cat(found, dim).narrow(dim, 0, total)


class RankShards:
    """Implements `contracts.optimizer.Shards` for one parameter."""

    def __init__(self, layout: RankLayout, groups: Ranks, name: str) -> None:
        self._cuts = layout.cuts(name)
        self._groups = groups
        self.shape = tuple(layout.whole[name].shape)
        self.divided = tuple(sorted({cut.dim for cut in self._cuts}))

    def gather(self, mine: Tensor, dims: Sequence[int]) -> Tensor:
        """What the ranks hold parts of, whole along these dims; the last cut is undone first."""
        for cut, total in reversed(self._undone(dims)):
            mine = gathered(mine, total, cut.dim, self._groups.group(*cut.axes), self._groups.size(*cut.axes))
        return mine

    def cut(self, whole: Tensor, dims: Sequence[int]) -> Tensor:
        """This rank's part along these dims, a view."""
        for cut, total in self._undone(dims):
            whole = whole.narrow(cut.dim, *self._chunk(total, cut))
        return whole

    def _undone(self, dims: Sequence[int]) -> list[tuple[Cut, int]]:
        """Cuts along these dims, and how many entries the dim had on this rank before each."""
        size, found = list(self.shape), []
        for cut in self._cuts:
            if cut.dim in dims:
                found.append((cut, size[cut.dim]))
                _, size[cut.dim] = self._chunk(size[cut.dim], cut)
        return found

    def _chunk(self, total: int, cut: Cut) -> tuple[int, int]:
        return chunk(total, self._groups.size(*cut.axes), self._groups.coordinate(*cut.axes))
