"""Tensors of a GPU in pinned host memory, copied there and back on a stream beside the computation."""

from __future__ import annotations

import torch
from torch import Tensor


class CudaHostCopy:
    """Implements `contracts.device.HostCopy`.

    :param host: pinned; being written by `stream`.
    :param stream: carries copies in both directions, so that none back begins before its copy out has ended.
    """

    def __init__(self, host: Tensor, stream: torch.cuda.Stream) -> None:
        self._host, self._stream = host, stream
        self._coming: tuple[Tensor, torch.cuda.Event] | None = None

    def start(self) -> None:
        """Queue the copy back."""
        if self._coming is None:
            with torch.cuda.stream(self._stream):
                back = self._host.to(self._stream.device, non_blocking=True)
            self._coming = back, self._stream.record_event()

    def tensor(self) -> Tensor:
        """The tensor, for which the current stream waits; the host does not."""
        self.start()
        assert self._coming is not None
        (back, arrived), self._coming = self._coming, None
        current = torch.cuda.current_stream(self._stream.device)
        current.wait_event(arrived)
        # The memory is of the copying stream's pool: it may be used anew only after the current stream's work.
        back.record_stream(current)
        return back


def copy_to_host(tensor: Tensor, stream: torch.cuda.Stream) -> CudaHostCopy:
    """Queue a copy to pinned memory behind the work of the current stream."""
    host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(stream):
        host.copy_(tensor, non_blocking=True)
    # Not to be used anew before the copy has read it, though its owner may drop it now.
    tensor.record_stream(stream)
    return CudaHostCopy(host, stream)
