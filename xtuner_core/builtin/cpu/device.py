"""The device cpu: the process's own memory and random generator."""

from __future__ import annotations

from typing import Any

import torch

from xtuner_core.builtin.cpu import host
from xtuner_core.builtin.cpu.config import CpuConfig
from xtuner_core.contracts.device import DeviceFacts, MemoryFigures

CAPABILITIES = frozenset(
    {"dtype.fp64", "dtype.fp32", "dtype.bf16", "dtype.fp16", "comm.collectives", "comm.all_to_all"}
)
LACKS = {"memory.offload": "its memory is the host's"}


class CpuDevice:
    """The processor. Work is done when a call returns, so there is nothing to wait for."""

    def __init__(self, threads: int | None) -> None:
        self.torch_device = torch.device("cpu")
        self.backend = "gloo"
        self.deterministic = True
        self._threads_before = torch.get_num_threads()
        if threads is not None:
            torch.set_num_threads(threads)

    def facts(self) -> DeviceFacts:
        """Name the chip and the machine's memory; peak rates of CPUs stand in no data sheet."""
        return DeviceFacts(
            chip=host.chip_name(), capabilities=CAPABILITIES, lacks=LACKS, memory_bytes=host.memory_bytes()
        )

    def synchronize(self) -> None:
        """Nothing is queued."""

    def memory(self) -> MemoryFigures:
        """Measure the process's resident memory."""
        return MemoryFigures(allocated=host.resident_bytes(), peak=host.resident_peak_bytes())

    def reset_peak(self) -> None:
        """Start the peak anew where Linux lets us; elsewhere it stays that of the whole process."""
        host.reset_resident_peak()

    def seed(self, seed: int) -> None:
        """Seed PyTorch's CPU generator."""
        torch.default_generator.manual_seed(seed)

    def random_state(self) -> Any:
        """State of PyTorch's CPU generator, uint8."""
        return torch.default_generator.get_state()

    def set_random_state(self, state: Any) -> None:
        """Restore what `random_state` returned."""
        torch.default_generator.set_state(state)

    def close(self) -> None:
        """Give the number of threads back."""
        torch.set_num_threads(self._threads_before)


def open_device(config: CpuConfig, *, local_rank: int) -> CpuDevice:
    """Open the processor; every rank of a machine shares it."""
    del local_rank
    return CpuDevice(config.threads)
