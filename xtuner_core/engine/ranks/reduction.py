"""Sums over the ranks of a step: gradients that are whole on several, and the step's few numbers, once each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from xtuner_core.contracts.parallelism import Ranks
from xtuner_core.engine.gradients import gradient_norm
from xtuner_core.engine.ranks.layout import RankLayout

BUCKET = 2**25
"""Entries of gradients that are summed by one collective, at least where there are so many."""


class Reduction:
    """What one rank has to add to others', for the parameters of a run.

    :param names: of the parameters, in the order of the gradients.
    """

    def __init__(self, ranks: Ranks, layout: RankLayout, names: Sequence[str]) -> None:
        self._ranks = ranks
        self._replicas = [layout.replicas(name) for name in names]
        self._places: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, name in enumerate(names):
            axes = layout.unsummed(name)
            if axes:
                self._places[axes].append(place)
        views = ranks.views
        self._same = prod(axis.size for axis in views.axes["dense"] if axis.work == "same")

    def gradients(self, grads: list[Tensor]) -> None:
        """Sum gradients over the ranks that have each computed a share of them, in place."""
        for axes, places in self._places.items():
            group = self._ranks.group(*axes)
            for bucket in _buckets(grads, places):
                flat = torch.cat([grads[place].reshape(-1) for place in bucket])
                dist.all_reduce(flat, group=group)
                sizes = [grads[place].numel() for place in bucket]
                for place, part in zip(bucket, torch.split(flat, sizes), strict=True):
                    grads[place] = part.view_as(grads[place])

    def squares(self, grads: Sequence[Tensor]) -> Tensor:
        """This rank's share of what `norm` makes the gradient's norm of: parts that several hold count once."""
        if self._ranks.world_size == 1:
            return gradient_norm(grads)
        exact = torch.float64 if any(grad.dtype == torch.float64 for grad in grads) else torch.float32
        norms: Tensor = torch.stack(torch._foreach_norm(list(grads), 2, dtype=exact)).square()
        return (norms / norms.new_tensor(self._replicas)).sum()

    def norm(self, squares: float) -> float:
        """The norm of the whole gradient, from the sum of all ranks' `squares`."""
        return squares if self._ranks.world_size == 1 else squares**0.5

    def add(self, shares: Mapping[str, Tensor], *, whole: Sequence[str] = ()) -> dict[str, Tensor]:
        """Sum tensors by name over all ranks, in one collective and without waiting.

        :param shares: of this rank. Ranks that are given the same tokens have computed the same, which counts once.
        :param whole: names of those that count on every rank.
        """
        if self._ranks.world_size == 1:
            return dict(shares)
        # Gradients that are kept on the host have their norm there; the collective is the device's.
        device = next(iter(shares.values())).device
        scaled = [(t if name in whole else t / self._same).double().reshape(-1) for name, t in shares.items()]
        flat = torch.cat([part.to(device, non_blocking=True) for part in scaled])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in shares.values()])
        return {
            name: part.view(tensor.shape).to(tensor.dtype)
            for (name, tensor), part in zip(shares.items(), parts, strict=True)
        }

    def largest(self, number: int, device: torch.device) -> int:
        """The largest of all ranks' numbers; waits for the device."""
        if self._ranks.world_size == 1:
            return number
        found = torch.tensor([number], device=device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)


def _buckets(grads: Sequence[Tensor], places: Sequence[int]) -> list[list[int]]:
    """Places of gradients of one dtype, gathered up to `BUCKET` entries."""
    buckets: list[list[int]] = []
    open_by_dtype: dict[torch.dtype, tuple[list[int], int]] = {}
    for place in places:
        dtype, size = grads[place].dtype, grads[place].numel()
        bucket, filled = open_by_dtype.get(dtype, ([], BUCKET))
        if filled + size > BUCKET:
            bucket, filled = [], 0
            buckets.append(bucket)
        bucket.append(place)
        open_by_dtype[dtype] = bucket, filled + size
    return buckets
