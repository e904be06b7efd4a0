"""The ranks of a run, joined: process groups, and words between them that wait for no device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore, PrefixStore, Store, TCPStore
from torch.distributed import ProcessGroup

from xtuner_core.contracts.device import Device
from xtuner_core.contracts.launcher import Membership
from xtuner_core.engine.ranks.messages import pack_message, unpack_message

FOREVER = timedelta(days=365)
"""Who waits for a command waits as long as the leading rank needs; whether that still lives is watched elsewhere."""


class World:
    """The ranks of a run as one of them sees them.

    :param control: a group over the CPU for words between the ranks; None where the rank is alone.
    :param background: another one, for a thread that saves while steps go on.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        control: ProcessGroup | None = None,
        background: ProcessGroup | None = None,
        timeout: timedelta | None = None,
    ) -> None:
        self.membership = membership
        self.rank, self.size = membership.rank, membership.world_size
        self.timeout = timeout
        self.control, self.background = control, background

    @property
    def leads(self) -> bool:
        """Whether this rank runs the algorithm and speaks for the run."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def tell(self, content: Any) -> None:
        """Say something to all others, who hear it by `hear`; plain data and tensors."""
        self._broadcast(pack_message(content))

    def hear(self) -> Any:
        """What the leading rank tells."""
        return unpack_message(self._broadcast(None))

    def deal(self, contents: Sequence[Any] | None) -> Any:
        """Give each rank a content of its own.

        :param contents: on the leading rank, by rank; None on the others.
        :return: this rank's.
        """
        if self.alone:
            assert contents is not None
            return contents[0]
        if contents is None:
            (mine,) = self._scatter(None)
            return unpack_message(mine)
        self._scatter([pack_message(content) for content in contents[1:]])
        return contents[0]

    def collect(self, content: Any) -> list[Any]:
        """Every rank's content, by rank, on the leading one; nothing on the others."""
        if self.alone:
            return [content]
        mine = pack_message(content)
        sizes = self._sizes(mine)
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(mine)] = mine
        found = [torch.empty_like(padded) for _ in sizes] if self.leads else None
        dist.gather(padded, found, dst=0, group=self.control)
        if found is None:
            return []
        return [content] + [unpack_message(each[:size]) for each, size in zip(found[1:], sizes[1:], strict=True)]

    def agree(self, tensor: Tensor) -> Tensor:
        """The leading rank's tensor, on every rank; all have one of its shape and dtype, on the CPU."""
        if not self.alone:
            dist.broadcast(tensor, 0, group=self.control)
        return tensor

    def barrier(self) -> None:
        """Wait for all."""
        if not self.alone:
            dist.barrier(group=self.control)

    def _sizes(self, mine: Tensor) -> list[int]:
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(mine)]), group=self.control)
        return [int(size) for size in sizes]

    def _broadcast(self, message: Tensor | None) -> Tensor:
        size = torch.tensor([0 if message is None else len(message)])
        dist.broadcast(size, 0, group=self.control)
        message = torch.empty(int(size), dtype=torch.uint8) if message is None else message
        dist.broadcast(message, 0, group=self.control)
        return message

    def _scatter(self, messages: Sequence[Tensor] | None) -> list[Tensor]:
        """Send each other rank its message; ranks receive theirs."""
        if messages is None:
            size = torch.zeros(1, dtype=torch.int64)
            dist.recv(size, 0, group=self.control)
            found = torch.empty(int(size), dtype=torch.uint8)
            dist.recv(found, 0, group=self.control)
            return [found]
        for rank, message in enumerate(messages, 1):
            dist.send(torch.tensor([len(message)]), rank, group=self.control)
            dist.send(message, rank, group=self.control)
        return []


def lone_world() -> World:
    """The world of a run with one rank."""
    return World(Membership())


@contextmanager
def joined(membership: Membership, device: Device, timeout: timedelta) -> Iterator[World]:
    """Join the ranks of a run, and leave them at the end.

    :param timeout: of a collective that carries tensors of the step.
    :raises RunError: the process is in another group already.
    """
    if membership.world_size == 1:
        yield lone_world()
        return
    assert not dist.is_initialized(), "the process belongs to a process group already"
    kind = device.torch_device.type
    backend = device.backend if kind == "cpu" else f"cpu:gloo,{kind}:{device.backend}"
    dist.init_process_group(
        backend,
        store=_store(membership, timeout),
        rank=membership.rank,
        world_size=membership.world_size,
        timeout=timeout,
    )
    try:
        control = dist.new_group(backend="gloo", timeout=FOREVER)
        background = dist.new_group(backend="gloo", timeout=FOREVER)
        yield World(membership, control=control, background=background, timeout=timeout)
    finally:
        dist.destroy_process_group()


def _store(membership: Membership, timeout: timedelta) -> Store:
    """Where the ranks of this attempt meet; nothing of an earlier one is in it."""
    kind, _, place = membership.store.partition(":")
    if kind == "file":
        return FileStore(str(Path(place)), membership.world_size)
    host, _, port = place.rpartition(":")
    serves = kind == "tcp" and membership.rank == 0
    store = TCPStore(host, int(port), is_master=serves, timeout=timeout, wait_for_workers=False)
    return PrefixStore(f"attempt-{membership.attempt}", store)
