"""The devices cpu and cuda; of cuda what needs no GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from xtuner_core.builtin.cpu.config import CpuConfig
from xtuner_core.builtin.cpu.device import CpuDevice, open_device
from xtuner_core.builtin.cpu.plugin import CPU
from xtuner_core.builtin.cpu.probe import probe as probe_cpu
from xtuner_core.builtin.cuda.device import open_device as open_cuda
from xtuner_core.builtin.cuda.facts import PEAKS, facts_of
from xtuner_core.builtin.cuda.plugin import CUDA
from xtuner_core.builtin.cuda.probe import count_devices
from xtuner_core.builtin.cuda.probe import probe as probe_cuda
from xtuner_core.capabilities import CAPABILITIES
from xtuner_core.errors import RunError


@pytest.fixture
def cpu() -> Iterator[CpuDevice]:
    device = open_device(CpuConfig(), local_rank=0)
    yield device
    device.close()


def test_the_cpu_is_always_there():
    assert probe_cpu().count == 1


def test_threads_are_set_and_given_back():
    before = torch.get_num_threads()
    device = open_device(CpuConfig(threads=before + 1), local_rank=0)
    assert torch.get_num_threads() == before + 1
    device.close()
    assert torch.get_num_threads() == before


def test_fewer_than_one_thread_is_refused():
    with pytest.raises(ValueError, match="threads must be at least 1"):
        CpuConfig(threads=0)


def test_the_random_state_brings_back_the_same_numbers(cpu: CpuDevice):
    outside = cpu.random_state()
    cpu.seed(3)
    state = cpu.random_state()
    first = torch.rand(5)
    cpu.set_random_state(state)
    assert torch.equal(torch.rand(5), first)
    cpu.seed(3)
    assert torch.equal(torch.rand(5), first)
    cpu.set_random_state(outside)


def test_the_facts_of_a_cpu_are_those_that_its_record_provides(cpu: CpuDevice):
    facts = cpu.facts()
    assert facts.chip
    assert facts.memory_bytes > 2**28
    assert not facts.peak_flops
    assert facts.capabilities == CPU.provides
    assert not facts.capabilities & CPU.lacks.keys()


def test_the_peak_of_memory_follows_what_is_held_since_the_reset(cpu: CpuDevice):
    block = torch.ones(64 << 20, dtype=torch.uint8)
    high = cpu.memory().peak
    assert high >= cpu.memory().allocated >= block.numel()
    del block
    cpu.reset_peak()
    assert cpu.memory().peak <= high


def test_capability_words_are_known():
    words = {*CPU.provides, *CPU.lacks, *CUDA.provides, *facts_of(chip("NVIDIA H100 80GB HBM3", 9, 0)).capabilities}
    assert words <= CAPABILITIES.keys()


def chip(name: str, major: int, minor: int) -> SimpleNamespace:
    return SimpleNamespace(name=name, major=major, minor=minor, total_memory=80 << 30)


def test_hopper_computes_in_fp8_and_has_a_data_sheet_peak():
    facts = facts_of(chip("NVIDIA H100 80GB HBM3", 9, 0))
    assert {"dtype.bf16", "dtype.fp8"} <= facts.capabilities
    assert not facts.lacks
    assert facts.peak_flops == {"bfloat16": 989.4e12, "float16": 989.4e12, "float8_e4m3fn": 1978.9e12}
    assert facts.memory_bytes == 80 << 30


def test_every_peak_is_named_by_a_dtype():
    names = {name for peaks in PEAKS.values() for name in peaks}
    assert all(isinstance(getattr(torch, name), torch.dtype) for name in names)


def test_ampere_lacks_fp8_and_says_why():
    facts = facts_of(chip("NVIDIA A100-SXM4-80GB", 8, 0))
    assert "dtype.bf16" in facts.capabilities
    assert "compute capability 8.0" in facts.lacks["dtype.fp8"]
    assert "dtype.fp8" not in facts.capabilities
    assert facts.peak_flops["bfloat16"] == 312e12


def test_turing_lacks_bf16_and_an_unknown_chip_has_no_peak():
    facts = facts_of(chip("NVIDIA T4", 7, 5))
    assert facts.lacks.keys() == {"dtype.bf16", "dtype.fp8"}
    assert facts.peak_flops == {}


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H200", 989.4e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 NVL", 835.5e12), ("NVIDIA A10", 125e12)],
)
def test_variants_of_a_chip_are_told_apart(name: str, peak: float):
    assert facts_of(chip(name, 9, 0)).peak_flops["bfloat16"] == peak


class Driver:
    """As much of libcuda as the probe calls."""

    def __init__(self, *, init: int, count: int) -> None:
        self._init, self._count = init, count

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._init

    def cuDeviceGetCount(self, pointer: object) -> int:  # noqa: N802
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = self._count
        return 0


def test_the_driver_counts_the_gpus():
    assert count_devices(Driver(init=0, count=4)).count == 4


@pytest.mark.parametrize(("init", "count", "reason"), [(100, 0, "cuInit returns 100"), (0, 0, "counts no GPU")])
def test_a_driver_without_gpus_says_so(init: int, count: int, reason: str):
    found = count_devices(Driver(init=init, count=count))
    assert found.count == 0
    assert reason in found.reason


def test_probing_for_cuda_gives_a_count_or_a_reason():
    found = probe_cuda()
    assert bool(found.count) != bool(found.reason)


def test_opening_cuda_where_there_is_none_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(RunError, match="needs a PyTorch built with CUDA") as caught:
        open_cuda(None, local_rank=0)
    assert (caught.value.plugin, "device=cpu" in caught.value.fix) == ("cuda", True)


def test_a_rank_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RunError, match="rank 2 of this machine has no GPU, PyTorch sees 2"):
        open_cuda(None, local_rank=2)
