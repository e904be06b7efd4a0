"""Whatever a run changes of its process is put back, also when the run fails."""

from __future__ import annotations

import random
import signal
import threading

import numpy as np
import pytest
import torch

from xtuner_core.builtin.cpu.device import CpuDevice
from xtuner_core.engine.handle import RunHandle
from xtuner_core.engine.process import default_dtype, determinism, device_seeded, seeded, sole_run, stopped_by_signals
from xtuner_core.errors import RunError


def fail_in(context, look):
    """Look around inside the context, and leave it by an error."""
    with context:
        look()
        raise OSError


def test_the_default_dtype_is_put_back():
    seen = []
    with pytest.raises(OSError):  # noqa: PT011
        fail_in(default_dtype(torch.bfloat16), lambda: seen.append(torch.empty(1).dtype))
    assert seen == [torch.bfloat16]
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("before", ["default", "warn"])
def test_determinism_is_put_back(before):
    found = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(before)
    try:
        seen = []
        with pytest.raises(OSError):  # noqa: PT011
            fail_in(determinism(True), lambda: seen.append(torch.get_deterministic_debug_mode()))
        assert seen == [2]
        assert torch.get_deterministic_debug_mode() == {"default": 0, "warn": 1}[before]
        assert torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.set_deterministic_debug_mode(found)


def _draws():
    return random.random(), float(np.random.rand()), torch.rand(1).item()


def test_random_generators_are_seeded_and_put_back():
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    untouched = _draws()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    with seeded(7):
        first = _draws()
    with seeded(7):
        assert _draws() == first
    assert _draws() == untouched
    assert first != untouched


def test_the_devices_generator_is_seeded_and_put_back():
    device = CpuDevice(None)
    before = device.random_state()
    with device_seeded(7, device):
        first = torch.rand(1)
    assert torch.equal(device.random_state(), before)
    with device_seeded(7, device):
        assert torch.equal(torch.rand(1), first)


@pytest.fixture
def _interruptible():
    """Python's own SIGINT handler, which a shell that starts this in the background has taken away."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, found)


@pytest.mark.usefixtures("_interruptible")
def test_a_first_signal_stops_the_run_a_second_ends_it_and_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    handle = RunHandle()
    with stopped_by_signals(handle, repeat=0.0):
        signal.raise_signal(signal.SIGTERM)
        assert handle.reason == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert handle.reason == "SIGTERM"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_follows_at_once_is_the_same_one():
    handle = RunHandle()
    with stopped_by_signals(handle, repeat=60.0):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert handle.reason == "SIGINT"


def test_outside_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with stopped_by_signals(RunHandle()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_run_within_a_run_is_refused():
    with sole_run(RunHandle()), pytest.raises(RunError, match="within a run"), sole_run(RunHandle()):
        pass
    with sole_run(RunHandle()):
        pass


def test_a_run_in_another_thread_waits_and_can_be_stopped_meanwhile():
    order, handle = [], RunHandle()

    def work(own):
        try:
            with sole_run(own):
                order.append("second")
        except RunError:
            order.append("stopped")

    with sole_run(RunHandle()):
        waiting, stopped = (threading.Thread(target=work, args=(own,)) for own in (RunHandle(), handle))
        waiting.start()
        stopped.start()
        handle.stop("enough")
        stopped.join()
        order.append("first")
    waiting.join()
    assert order == ["stopped", "first", "second"]


def test_a_handle_keeps_the_first_reason():
    handle = RunHandle()
    assert handle.reason is None
    handle.stop("budget")
    handle.stop("whim")
    assert handle.reason == "budget"
