"""Views of the ranks: one world, divided twice, into axes whose sizes multiply to it. Imports no torch.

The view `dense` is replicate x data x shard x ... x sequence, the view `expert` replicate x data x shard x ... x
parallel; `replicate` is common to both, and a strategy's own axes stand at the dots. `data` is what no strategy owns:
ranks that hold the same weights and get other documents. Ranks count with the last axis moving fastest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Literal

from xtuner_core.records import Dimension, Problem

VIEWS = ("dense", "expert")
REPLICATE = "replicate"
"""The axis that every view begins with."""
FIRST, LAST = ("data", "shard"), ("sequence", "parallel")
"""Words of the axes that stand at the beginning and at the end of a view."""
Work = Literal["documents", "tokens", "same", "parts"]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a view."""

    name: str
    """`dense.shard`; `replicate` without a view."""
    size: int
    work: Work = "documents"
    """What the ranks along it are given (`records.Dimension.work`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a strategy asks for: an axis and its size; None leaves the size to the core."""

    dimension: Dimension
    size: int | None
    key: str
    """Key that chose the strategy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """How a world is divided."""

    world: int
    axes: Mapping[str, tuple[Axis, ...]]
    """By view, outermost first."""

    def axis(self, name: str) -> Axis:
        """The axis of that name; one of size 1 where no strategy owns it."""
        found = [axis for axes in self.axes.values() for axis in axes if axis.name == name]
        return found[0] if found else Axis(name, 1)

    def size(self, *names: str) -> int:
        """Ranks along these axes together."""
        return prod(self.axis(name).size for name in names)

    def view_of(self, *names: str) -> str:
        """The view that these axes lie in."""
        views = {name.partition(".")[0] for name in names if "." in name} or {"dense"}
        assert len(views) == 1, f"{names} lie in several views"
        return views.pop()

    def coordinates(self, rank: int, view: str) -> dict[str, int]:
        """Where a rank stands along each axis of a view."""
        found: dict[str, int] = {}
        for axis in reversed(self.axes[view]):
            rank, found[axis.name] = divmod(rank, axis.size)
        return found

    def coordinate(self, rank: int, *names: str) -> int:
        """Where a rank stands along these axes together, the last moving fastest."""
        place, at = 0, self.coordinates(rank, self.view_of(*names))
        for name in names:
            place = place * self.size(name) + at.get(name, 0)
        return place

    def members(self, rank: int, *names: str) -> tuple[int, ...]:
        """Ranks that differ from `rank` along these axes only, itself included, in the order of `coordinate`."""
        view = self.view_of(*names)
        at = self.coordinates(rank, view)
        strides = self._strides(view)
        origin = rank - sum(at.get(name, 0) * strides.get(name, 0) for name in names)
        spots = product(*(range(self.size(name)) for name in names))
        return tuple(
            origin + sum(i * strides.get(name, 0) for i, name in zip(spot, names, strict=True)) for spot in spots
        )

    def groups(self, *names: str) -> list[tuple[int, ...]]:
        """Every set of ranks that differ along these axes only."""
        return sorted({self.members(rank, *names) for rank in range(self.world)})

    def working(self, work: Work, view: str = "dense") -> tuple[str, ...]:
        """Names of the axes of a view along which the ranks are given this kind of work."""
        return tuple(axis.name for axis in self.axes[view] if axis.work == work)

    def _strides(self, view: str) -> dict[str, int]:
        strides, stride = {}, 1
        for axis in reversed(self.axes[view]):
            strides[axis.name] = stride
            stride *= axis.size
        return strides


def divide(world: int, claims: Sequence[Claim]) -> Views | list[Problem]:
    """Divide a world as the strategies ask.

    :return: the views; or why they cannot be, each with the sizes that can.
    """
    common = [claim for claim in claims if claim.dimension.name == REPLICATE]
    replicate = prod(claim.size or 1 for claim in common)
    problems: list[Problem] = []
    axes: dict[str, tuple[Axis, ...]] = {}
    for view in VIEWS:
        own = [claim for claim in claims if claim.dimension.name.startswith(f"{view}.")]
        found = _view(world, view, replicate, common, own)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            axes[view] = found
    if not problems:
        problems += _unshared(axes, claims)
    # A size that divides neither view is told once.
    return list({p.message: p for p in problems}.values()) or Views(world=world, axes=axes)


def _view(
    world: int, view: str, replicate: int, common: Sequence[Claim], claims: Sequence[Claim]
) -> tuple[Axis, ...] | Problem:
    fixed = replicate * prod(claim.size for claim in claims if claim.size is not None)
    if world % fixed:
        return _indivisible(world, fixed, [*common, *claims])
    free = [claim for claim in claims if claim.size is None]
    if len(free) > 1:
        return _undecided(free)
    rest = world // fixed
    sizes = {claim.dimension.name: claim.size or rest for claim in claims}
    data = 1 if free else rest
    named = {claim.dimension.name: claim.dimension.work for claim in claims}
    names = sorted({f"{view}.data", *named}, key=_place)
    return (
        Axis(REPLICATE, replicate),
        *(Axis(name, sizes.get(name, data), named.get(name, "documents")) for name in names),
    )


def _unshared(axes: Mapping[str, Sequence[Axis]], claims: Sequence[Claim]) -> list[Problem]:
    """The expert view takes every rank to have tokens of its own; those that ranks share would count twice."""
    alike = [axis.name for axis in axes["dense"] if axis.work in ("same", "parts") and axis.size > 1]
    experts = [c for c in claims if c.dimension.name.startswith("expert.") and _size(axes["expert"], c) > 1]
    apart = [c for c in experts if c.size is not None or c.dimension.name.endswith(".parallel")]
    if not alike or not apart:
        return []
    key = f"{apart[0].key}.{apart[0].dimension.size}"
    message = f"ranks along {', '.join(alike)} are given the same tokens, and {key} would count each several times"
    return [Problem(message=message, fix=f"set {key}=1, or leave the other out", code="ranks", key=key)]


def _size(axes: Sequence[Axis], claim: Claim) -> int:
    return next(axis.size for axis in axes if axis.name == claim.dimension.name)


def _place(name: str) -> tuple[int, int]:
    word = name.partition(".")[2]
    if word in FIRST:
        return 0, FIRST.index(word)
    return (2, LAST.index(word)) if word in LAST else (1, 0)


def _undecided(free: Sequence[Claim]) -> Problem:
    keys = [f"{claim.key}.{claim.dimension.size}" for claim in free]
    message = f"{' and '.join(keys)} are both left to the core, which can decide one size of a view"
    return Problem(message=message, fix=f"give {keys[-1]} a number", code="ranks", key=keys[-1])


def _indivisible(world: int, fixed: int, claims: Iterable[Claim]) -> Problem:
    given = [claim for claim in claims if claim.size not in (None, 1)]
    told = " times ".join(f"{claim.key}.{claim.dimension.size}={claim.size}" for claim in given)
    last = given[-1]
    others = fixed // (last.size or 1)
    fits = [size for size in range(1, world + 1) if world % (others * size) == 0]
    key = f"{last.key}.{last.dimension.size}"
    fix = (
        f"with the other sizes as they are, {key} may be {', '.join(map(str, fits))}"
        if fits
        else f"start a multiple of {others} ranks, or make another size smaller"
    )
    return Problem(message=f"{told} does not divide {world} ranks", fix=fix, code="ranks", key=key)
