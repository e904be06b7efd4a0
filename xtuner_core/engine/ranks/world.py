"""The ranks of a run, joined: process groups for the tensors of the step, channels for words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist
from torch._C._distributed_c10d import FileStore, PrefixStore, Store, TCPStore

from xtuner_core.contracts.device import Device
from xtuner_core.contracts.launcher import Membership
from xtuner_core.engine.ranks.channel import Channel
from xtuner_core.errors import PlanMismatch
from xtuner_core.plan import Plan

HOST_BACKEND = "gloo"
"""Carries words between ranks, whatever carries their tensors."""
FOREVER = timedelta(days=365)
"""Who waits for a command waits as long as the leading rank needs; whether that still lives is watched elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The ranks of a run as one of them sees them."""

    membership: Membership
    control: Channel
    background: Channel
    """For a thread that saves while steps go on."""
    timeout: timedelta | None = None
    """Of a collective that carries tensors of the step."""

    @property
    def leads(self) -> bool:
        """Whether this rank runs the algorithm and speaks for the run."""
        return self.membership.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.membership.world_size == 1


def lone_world() -> World:
    """The world of a run with one rank."""
    channel = Channel(0, 1, None)
    return World(membership=Membership(), control=channel, background=channel)


@contextmanager
def joined(membership: Membership, device: Device, timeout: timedelta) -> Iterator[World]:
    """Join the ranks of a run, and leave them at the end. Where the process is in a group already, that serves.

    :param timeout: of a collective that carries tensors of the step.
    """
    if membership.world_size == 1:
        yield lone_world()
        return
    ours = not dist.is_initialized()
    if ours:
        mixed = f"cpu:gloo,{device.torch_device.type}:{device.backend}"
        backend = HOST_BACKEND if device.backend == HOST_BACKEND else mixed
        rank, size = membership.rank, membership.world_size
        store = _store(membership, timeout)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    try:
        assert (dist.get_rank(), dist.get_world_size()) == (membership.rank, membership.world_size)
        yield World(
            membership=membership,
            control=_channel(membership),
            background=_channel(membership),
            timeout=timeout,
        )
    finally:
        if ours:
            dist.destroy_process_group()


def compare_plans(world: World, plan: Plan) -> None:
    """Refuse to start where a rank would compute something else than the leading one.

    :raises PlanMismatch: on every rank; names ranks and fields.
    """
    if world.alone:
        return
    leading = Plan.from_json(world.control.share(plan.to_json()))
    differing = [] if plan.digest == leading.digest else leading.difference(plan)
    found = world.control.share([[rank, lines] for rank, lines in enumerate(world.control.gather(differing)) if lines])
    if found:
        lines = "\n".join(f"- rank {rank}: {line}" for rank, lines in found for line in lines)
        fix = "install the same on every host, and start every rank with the same command"
        raise PlanMismatch(f"ranks would not compute the same run as rank 0:\n{lines}", fix=fix)


def _channel(membership: Membership) -> Channel:
    group = dist.new_group(backend="gloo", timeout=FOREVER)
    return Channel(membership.rank, membership.world_size, group)


def _store(membership: Membership, timeout: timedelta) -> Store:
    """Where the ranks of this attempt meet; nothing of an earlier one is in it."""
    kind, _, place = membership.store.partition(":")
    if kind == "file":
        return FileStore(place, membership.world_size)
    host, _, port = place.rpartition(":")
    serves = kind == "tcp" and membership.rank == 0
    store = TCPStore(host, int(port), is_master=serves, timeout=timeout, wait_for_workers=False)
    return PrefixStore(f"attempt-{membership.attempt}", store)
