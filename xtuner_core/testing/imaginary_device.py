"""The device `imaginary`: PyTorch's CPU, with facts and memory figures of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from xtuner_core.contracts.device import DeviceFacts, MemoryFigures
from xtuner_core.testing.imaginary import LACKS, PROVIDES


class ImaginaryDevice:
    """One opened device; its memory is the physical memory of the process."""

    backend = "gloo"
    deterministic = True

    def __init__(self, config: None, *, local_rank: int) -> None:
        del config
        self.local_rank = local_rank
        self.torch_device = torch.device("cpu")
        self._peak = 0

    def facts(self) -> DeviceFacts:
        """Tell a chip, a memory and a peak that no processor has."""
        return DeviceFacts(
            chip="Unicorn 1",
            capabilities=PROVIDES,
            lacks={word: lack.reason for word, lack in LACKS.items()},
            memory_bytes=1 << 40,
            peak_flops={"float32": 1e15, "bfloat16": 2e15},
        )

    def synchronize(self) -> None:
        """Nothing is queued."""

    def memory(self) -> MemoryFigures:
        """Measure the process, and keep the most that was ever measured."""
        allocated = resident_bytes()
        self._peak = max(self._peak, allocated)
        return MemoryFigures(allocated=allocated, peak=self._peak)

    def reset_peak(self) -> None:
        """Start the peak anew."""
        self._peak = 0

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
        """Nothing was taken."""


def resident_bytes() -> int:
    """Physical memory of this process (Linux, `man 5 proc`, statm); 0 elsewhere."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
