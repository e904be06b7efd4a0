"""The contract suite of devices."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from xtuner_core.capabilities import CAPABILITIES
from xtuner_core.contracts.device import Device
from xtuner_core.contracts.observer import RunEnd, RunStart, RunStep
from xtuner_core.host import Host
from xtuner_core.records import DeviceProvider
from xtuner_core.registry import Offer
from xtuner_core.testing.children import ask_child
from xtuner_core.testing.suite import OfferSuite
from xtuner_core.testing.tiny_run import compose_tiny
from xtuner_core.wiring import run

DTYPES = {
    "dtype.fp64": torch.float64,
    "dtype.fp32": torch.float32,
    "dtype.bf16": torch.bfloat16,
    "dtype.fp16": torch.float16,
}
HELD = 64 << 20
"""Bytes of the tensor whose memory must show: no allocator has as much to spare."""


class Losses:
    """An observer that keeps the losses."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_start(self, start: RunStart) -> None:
        """Nothing yet."""

    def on_step(self, step: RunStep) -> None:
        """Keep the loss."""
        self.found.append(step.result.loss)

    def on_end(self, end: RunEnd) -> None:
        """Nothing more."""


class DeviceContract(OfferSuite):
    """What holds for every device; it has to be there (mark the class `gpu` where it is not everywhere)."""

    slot: ClassVar[str] = "device"
    precision: ClassVar[str] = "auto"
    """Of the training step."""

    @pytest.fixture
    def device(self, host: Host, offered: Offer, case: int) -> Iterator[Device]:
        """The open device."""
        device: Device = self.parts(host, offered, case).make("device", local_rank=0)
        yield device
        device.close()

    def test_the_probe_finds_it_without_importing_anything_heavy(self, offered: Offer) -> None:
        """In a process of its own."""
        module, _, name = _provider(offered).probe.partition(":")
        found = ask_child("probe", module, name)
        assert found["heavy"] == []
        assert found["count"] > 0, found["reason"]

    def test_it_opens_and_closes_again_and_again(self, host: Host, offered: Offer, case: int) -> None:
        """A process may run twice."""
        parts = self.parts(host, offered, case)
        facts = []
        for _ in range(2):
            device = parts.make("device", local_rank=0)
            facts.append(device.facts())
            device.close()
        assert facts[0] == facts[1]

    def test_its_facts_are_well_formed(self, host: Host, offered: Offer, device: Device) -> None:
        """Known words, each either had or lacked with a reason; a chip, memory, peaks by dtype."""
        facts, known = device.facts(), {*CAPABILITIES, *host.infos[offered.plugin].capabilities}
        assert facts.chip.strip()
        assert facts.memory_bytes > 0
        assert facts.capabilities | facts.lacks.keys() <= known
        assert facts.capabilities.isdisjoint(facts.lacks)
        assert all(reason.strip() for reason in facts.lacks.values())
        assert offered.provider.provides <= facts.capabilities | facts.lacks.keys()
        for dtype, peak in facts.peak_flops.items():
            assert isinstance(getattr(torch, dtype), torch.dtype)
            assert peak > 0

    def test_what_it_lacks_has_a_way_out(self, offered: Offer) -> None:
        """Nothing is both provided and lacked."""
        provider = offered.provider
        assert provider.provides.isdisjoint(provider.lacks)
        assert all(lack.reason.strip() and lack.fix.strip() for lack in provider.lacks.values())

    def test_it_has_a_torch_device_a_backend_and_a_word_on_determinism(self, device: Device) -> None:
        """What the engine reads."""
        assert isinstance(device.torch_device, torch.device)
        assert device.backend
        assert isinstance(device.deterministic, bool)

    def test_memory_in_use_and_at_the_peak_shows(self, device: Device) -> None:
        """A tensor of 64 MiB is seen while it is held, and the peak does not forget it until it is told to."""
        before = device.memory().allocated
        held = torch.ones(HELD // 4, dtype=torch.float32, device=device.torch_device)
        device.synchronize()
        during = device.memory()
        assert held.sum().item() == HELD // 4
        assert during.allocated - before >= HELD // 2
        assert during.peak >= during.allocated
        del held
        assert device.memory().peak - before >= HELD // 2
        device.reset_peak()
        assert device.memory().peak <= during.peak

    def test_a_seed_gives_the_same_draws_and_another_seed_others(self, device: Device) -> None:
        """On the device's own generator."""
        draws = [_draw(device, seed) for seed in (7, 7, 8)]
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])

    def test_a_restored_random_state_gives_the_same_draws(self, device: Device) -> None:
        """From where it was taken."""
        device.seed(1)
        _draw(device)
        state = device.random_state()
        first = _draw(device)
        device.set_random_state(state)
        assert torch.equal(_draw(device), first)

    def test_tensors_come_back_as_they_went(self, device: Device) -> None:
        """In every dtype that it says it computes in."""
        words = device.facts().capabilities & DTYPES.keys()
        assert words
        for word in words:
            sent = torch.arange(256).to(DTYPES[word]).reshape(16, 16)
            there = sent.to(device.torch_device)
            assert torch.equal(there.to("cpu"), sent)
            assert (there @ there).isfinite().all() or word == "dtype.fp16"

    def test_a_tiny_run_trains_on_it(self, host: Host, offered: Offer, case: int, tmp_path: Path) -> None:
        """Two steps, finite losses, weights exported."""
        losses = Losses()
        picks = {"device": self._pick(offered, case), "precision": self.precision}
        outcome = run(compose_tiny(picks, host=host), observers=[losses], folder=tmp_path / "run")
        assert outcome.status == "finished"
        assert len(losses.found) == 2
        assert all(isfinite(loss) for loss in losses.found)
        assert (tmp_path / "run" / "export" / "config.json").exists()


def _provider(offered: Offer) -> DeviceProvider[Any]:
    assert isinstance(offered.provider, DeviceProvider)
    return offered.provider


def _draw(device: Device, seed: int | None = None) -> torch.Tensor:
    if seed is not None:
        device.seed(seed)
    return torch.rand(64, device=device.torch_device).cpu()
