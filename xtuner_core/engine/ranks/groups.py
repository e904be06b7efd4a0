"""The process groups and meshes of a world, along the axes of its views."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from xtuner_core.views import Views


class RankGroups:
    """Implements `contracts.parallelism.Ranks`; process groups are joined already, unless the rank is alone.

    :param device_type: of the tensors that the groups carry.
    :param timeout: of a collective.
    """

    def __init__(self, views: Views, rank: int, *, device_type: str, timeout: timedelta | None = None) -> None:
        self.rank, self.world_size, self.views = rank, views.world, views
        self._device_type = device_type
        self._timeout = timeout
        self.made: dict[tuple[str, ...], ProcessGroup] = {}
        """Groups that were asked for, by their axes."""

    def size(self, *axes: str) -> int:
        """Ranks along these axes together; 1 where there are none."""
        return self.views.size(*axes)

    def coordinate(self, *axes: str) -> int:
        """Where this rank stands along these axes together."""
        return self.views.coordinate(self.rank, *axes) if axes else 0

    def group(self, *axes: str) -> ProcessGroup:
        """The ranks that differ from this one along these axes only. Every rank asks for the same groups in turn."""
        if axes not in self.made:
            mine: ProcessGroup | None = None
            for members in self.views.groups(*axes):
                made = dist.new_group(list(members), timeout=self._timeout)
                mine = made if self.rank in members else mine
            assert mine is not None
            self.made[axes] = mine
        return self.made[axes]

    def mesh(self, *dims: tuple[str, ...]) -> DeviceMesh:
        """A mesh over this rank's neighbours, one dim for each tuple of axes."""
        names = tuple("+".join(axes) for axes in dims)
        groups = [self.group(*axes) for axes in dims]
        if len(dims) == 1:
            return DeviceMesh.from_group(groups[0], self._device_type, mesh_dim_names=names)
        every = tuple(axis for axes in dims for axis in axes)
        grid = torch.tensor(self.views.members(self.rank, *every)).view([self.size(*axes) for axes in dims])
        return DeviceMesh.from_group(groups, self._device_type, mesh=grid, mesh_dim_names=names)


def alone(device_type: str = "cpu") -> RankGroups:
    """The ranks of a run that has one."""
    from xtuner_core.views import divide

    views = divide(1, ())
    assert isinstance(views, Views)
    return RankGroups(views, 0, device_type=device_type)
