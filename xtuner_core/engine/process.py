"""Process-wide state that a run changes, each as a context manager that puts back what it found."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

import numpy as np
import torch

from xtuner_core.contracts.device import Device
from xtuner_core.engine.handle import RunHandle
from xtuner_core.errors import RunError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
REPEAT = 0.5
"""Seconds within which a signal counts as the one before."""

# Dtype, random state and determinism belong to the process, whoever runs in it: what guards them does too.
_PROCESS = threading.Lock()
_RUNNING = threading.local()


@contextmanager
def sole_run(handle: RunHandle) -> Iterator[None]:
    """Hold the process's state; a run in another thread waits here until this one has put it back.

    :raises RunError: a run was started inside a run, or was stopped while it waited.
    """
    if getattr(_RUNNING, "held", False):
        fix = "start it after the other, or in a process of its own"
        raise RunError("a run was started from within a run", fix=fix)
    while not _PROCESS.acquire(timeout=0.1):
        if handle.reason is not None:
            raise RunError(f"the run was stopped ({handle.reason}) while another had the process")
    _RUNNING.held = True
    try:
        yield
    finally:
        _RUNNING.held = False
        _PROCESS.release()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set the dtype of tensors that are made without one."""
    found = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(found)


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Say whether PyTorch must take deterministic algorithms.

    New memory is not filled, as PyTorch would in this mode: reading it is a bug that tests are there to find.
    """
    settings: Any = torch.utils.deterministic  # a module with properties, which its stub does not know
    mode, fill = torch.get_deterministic_debug_mode(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(wanted)
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = fill
        torch.set_deterministic_debug_mode(mode)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the random generators of Python, NumPy and PyTorch's CPU.

    The components of this package draw from generators of their own; this is for those of others.
    """
    found = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(found[0])
        np.random.set_state(found[1])
        torch.set_rng_state(found[2])


@contextmanager
def device_seeded(seed: int, device: Device) -> Iterator[None]:
    """Seed the device's random generator."""
    found = device.random_state()
    device.seed(seed)
    try:
        yield
    finally:
        device.set_random_state(found)


@contextmanager
def stopped_by_signals(handle: RunHandle, *, repeat: float = REPEAT) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a stop of the run; a second, of either, does what it did before the run.

    Outside the main thread, where Python takes no signals, this does nothing.

    :param repeat: seconds after the first within which another is taken for the same: a scheduler signals a
        process and then its group.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    # A handler that was not set from Python reads None and could not be put back.
    mine = {number: handler for number, handler in found.items() if handler is not None}
    first: list[float] = []

    def stop(number: int, frame: Any) -> None:
        if not first:
            first.append(monotonic())
            handle.stop(signal.Signals(number).name)
        elif monotonic() - first[0] >= repeat:
            _handle_with(mine)
            signal.raise_signal(number)

    _handle_with(dict.fromkeys(mine, stop))
    try:
        yield
    finally:
        _handle_with(mine)


def _handle_with(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
