"""The device cuda: one NVIDIA GPU through torch.cuda."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from xtuner_core.builtin.cuda.facts import facts_of
from xtuner_core.builtin.cuda.host_copies import CudaHostCopy, copy_to_host
from xtuner_core.contracts.device import DeviceFacts, MemoryFigures
from xtuner_core.errors import RunError


class CudaDevice:
    """The GPU of one rank."""

    def __init__(self, index: int) -> None:
        self.torch_device = torch.device("cuda", index)
        self.backend = "nccl"
        self.deterministic = False
        self._current_before = torch.cuda.current_device()
        torch.cuda.set_device(self.torch_device)
        self._copies: torch.cuda.Stream | None = None

    def facts(self) -> DeviceFacts:
        """Chip, capabilities, memory and data-sheet peaks."""
        return facts_of(torch.cuda.get_device_properties(self.torch_device))

    def synchronize(self) -> None:
        """Wait for all streams of the GPU."""
        torch.cuda.synchronize(self.torch_device)

    def memory(self) -> MemoryFigures:
        """Bytes of tensors, as the caching allocator counts them."""
        return MemoryFigures(
            allocated=torch.cuda.memory_allocated(self.torch_device),
            peak=torch.cuda.max_memory_allocated(self.torch_device),
        )

    def reset_peak(self) -> None:
        """Start the peak anew."""
        torch.cuda.reset_peak_memory_stats(self.torch_device)

    @contextmanager
    def record_memory(self, file: Path) -> Iterator[None]:
        """Record allocations in the block; PyTorch's memory viewer (pytorch.org/memory_viz) shows the file."""
        torch.cuda.memory._record_memory_history()
        try:
            yield
            torch.cuda.memory._dump_snapshot(str(file))  # type: ignore[no-untyped-call]
        finally:
            torch.cuda.memory._record_memory_history(enabled=None)

    def to_host(self, tensor: torch.Tensor) -> CudaHostCopy:
        """Copy to pinned memory on a stream of its own."""
        if self._copies is None:
            self._copies = torch.cuda.Stream(self.torch_device)  # type: ignore[no-untyped-call]
        return copy_to_host(tensor, self._copies)

    def seed(self, seed: int) -> None:
        """Seed the GPU's generator."""
        with torch.cuda.device(self.torch_device):
            torch.cuda.manual_seed(seed)

    def random_state(self) -> Any:
        """State of the GPU's generator, uint8 on the CPU."""
        return torch.cuda.get_rng_state(self.torch_device)

    def set_random_state(self, state: Any) -> None:
        """Restore what `random_state` returned."""
        torch.cuda.set_rng_state(state, self.torch_device)

    def close(self) -> None:
        """Give cached memory back and make the former GPU current again."""
        torch.cuda.empty_cache()
        torch.cuda.set_device(self._current_before)


def open_device(config: None, *, local_rank: int) -> CudaDevice:
    """Open the GPU of this rank.

    :raises RunError: this PyTorch has no CUDA, or the machine has no GPU of this number.
    """
    del config
    if torch.version.cuda is None:
        raise RunError(
            f"device=cuda needs a PyTorch built with CUDA, and this is {torch.__version__}",
            fix="install a CUDA build of torch, or choose device=cpu",
            plugin="cuda",
        )
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise RunError(
            f"device=cuda: rank {local_rank} of this machine has no GPU, PyTorch sees {found}",
            fix="start no more ranks than there are GPUs, or choose device=cpu",
            plugin="cuda",
        )
    return CudaDevice(local_rank)
