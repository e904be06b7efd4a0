"""Words between the ranks over a group on the host: plain data and tensors, with no device waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from xtuner_core.engine.ranks.messages import pack_message, unpack_message


class Channel:
    """Implements `hf.together.Together`. All ranks make the same calls in the same order.

    :param group: of all ranks, over the CPU; None where the rank is alone.
    """

    def __init__(self, rank: int, size: int, group: ProcessGroup | None) -> None:
        self.rank, self.size = rank, size
        self._group = group

    @property
    def leads(self) -> bool:
        """Whether this rank speaks for the run."""
        return self.rank == 0

    def share(self, data: Any = None) -> Any:
        """Get what the leading rank gives; what others give is passed over."""
        if self.size == 1:
            return data
        return unpack_message(self._broadcast(pack_message(data) if self.leads else None))

    def gather(self, data: Any) -> list[Any]:
        """Every rank's content, by rank, on the leading one; nothing on the others."""
        if self.size == 1:
            return [data]
        mine = pack_message(data)
        sizes = self._sizes(mine)
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(mine)] = mine
        found = [torch.empty_like(padded) for _ in sizes] if self.leads else None
        dist.gather(padded, found, dst=0, group=self._group)
        return [unpack_message(each[:size]) for each, size in zip(found or (), sizes if found else (), strict=True)]

    def deal(self, contents: Sequence[Any] | None = None) -> Any:
        """Give each rank a content of its own.

        :param contents: on the leading rank, by rank; None on the others.
        :return: this rank's.
        """
        if contents is None:
            return unpack_message(self._receive())
        for rank, content in enumerate(contents[1:], 1):
            message = pack_message(content)
            dist.send(torch.tensor([len(message)]), rank, group=self._group)
            dist.send(message, rank, group=self._group)
        return contents[0]

    def agree(self, tensor: Tensor) -> Tensor:
        """The leading rank's tensor, on every rank; all have one of its shape and dtype, on the CPU."""
        if self.size > 1:
            dist.broadcast(tensor, 0, group=self._group)
        return tensor

    def _sizes(self, mine: Tensor) -> list[int]:
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(mine)]), group=self._group)
        return [int(size) for size in sizes]

    def _broadcast(self, message: Tensor | None) -> Tensor:
        size = torch.tensor([0 if message is None else len(message)])
        dist.broadcast(size, 0, group=self._group)
        message = torch.empty(int(size), dtype=torch.uint8) if message is None else message
        dist.broadcast(message, 0, group=self._group)
        return message

    def _receive(self) -> Tensor:
        size = torch.zeros(1, dtype=torch.int64)
        dist.recv(size, 0, group=self._group)
        found = torch.empty(int(size), dtype=torch.uint8)
        dist.recv(found, 0, group=self._group)
        return found
