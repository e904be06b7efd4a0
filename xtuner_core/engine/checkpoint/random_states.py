"""The random states of a process and of its device, as plain data and tensors; nothing is pickled."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from xtuner_core.contracts.device import Device


def random_states(device: Device) -> dict[str, Any]:
    """States of the generators of Python, NumPy, PyTorch's CPU and the device."""
    state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        # The Mersenne twister's words are uint32, which not every reader of safetensors knows.
        "numpy": [str(kind), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "device": device.random_state(),
    }


def set_random_states(states: dict[str, Any], device: Device) -> None:
    """Restore what `random_states` returned."""
    kind, keys, position, has_gauss, gauss = states["numpy"]
    random.setstate(states["python"])
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    device.set_random_state(states["device"])
