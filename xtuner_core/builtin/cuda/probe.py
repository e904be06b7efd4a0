"""Counts NVIDIA GPUs through the driver, without importing torch."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

DRIVER = "libcuda.so.1"


@dataclass(frozen=True, slots=True)
class Found:
    """A `contracts.device.Probe` for a module that may import no torch."""

    count: int
    reason: str


def probe() -> Found:
    """Ask the driver; it makes no context and takes no memory on a GPU."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return Found(0, f"the NVIDIA driver is not installed ({DRIVER} is missing)")
    return count_devices(driver)


def count_devices(driver: ctypes.CDLL) -> Found:
    """Count with an opened driver (CUDA Driver API, cuInit and cuDeviceGetCount; 0 is success)."""
    code = driver.cuInit(0)
    if code:
        return Found(0, f"the NVIDIA driver finds no usable GPU (cuInit returns {code})")
    count = ctypes.c_int(0)
    code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        return Found(0, f"the NVIDIA driver counts no GPU (cuDeviceGetCount returns {code})")
    return Found(count.value, "")
