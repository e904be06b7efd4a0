"""The device abacus."""

from __future__ import annotations

from typing import Any

import torch

from xtuner_core.contracts.device import DeviceFacts, MemoryFigures


class Abacus:
    """The processor, with facts of its own."""

    backend = "gloo"
    deterministic = True

    def __init__(self, config: Any, *, local_rank: int) -> None:
        self.torch_device = torch.device("cpu")

    def facts(self) -> DeviceFacts:
        """Ten wires of ten beads."""
        return DeviceFacts(
            chip="ten wires",
            capabilities=frozenset({"dtype.fp32", "abacus.beads"}),
            memory_bytes=100,
            peak_flops={"float32": 1.0},
        )

    def synchronize(self) -> None:
        """Nothing is queued."""

    def memory(self) -> MemoryFigures:
        """All beads."""
        return MemoryFigures(allocated=100, peak=100)

    def reset_peak(self) -> None:
        """It stays."""

    def seed(self, seed: int) -> None:
        """Seed PyTorch's CPU generator."""
        torch.default_generator.manual_seed(seed)

    def random_state(self) -> Any:
        """State of PyTorch's CPU generator."""
        return torch.default_generator.get_state()

    def set_random_state(self, state: Any) -> None:
        """Restore what `random_state` returned."""
        torch.default_generator.set_state(state)

    def close(self) -> None:
        """Nothing was taken."""
