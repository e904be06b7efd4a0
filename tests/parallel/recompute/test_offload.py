"""Inputs in host memory: the same numbers, sent once, brought back last first and one ahead."""

from __future__ import annotations

import pytest
import torch

from xtuner_core.builtin.cpu.device import CpuDevice
from xtuner_core.builtin.cross_entropy.loss import TokenMean
from xtuner_core.testing.documents import PACKINGS, random_documents
from xtuner_core.testing.steps import differentiate


class Copy:
    def __init__(self, number, tensor, log):
        self.number, self.held, self.log = number, tensor.clone(), log

    def start(self):
        self.log.append(("start", self.number))

    def tensor(self):
        self.log.append(("back", self.number))
        return self.held.clone()


class Separate(CpuDevice):
    """A device with memory of its own, as far as anyone can see."""

    def __init__(self):
        super().__init__(None)
        self.log = []
        self.sent = 0

    def to_host(self, tensor):
        self.sent += 1
        return Copy(self.sent - 1, tensor.detach(), self.log)


@pytest.fixture
def batches():
    return PACKINGS[1](random_documents(200), 2)


@pytest.mark.parametrize("keep", ["nothing", "products"])
def test_the_same_bits_come_of_it(make_model, recomputed, batches, keep):
    plain, device = make_model("tiny", num_layers=3), Separate()
    model = recomputed(plain, {"offload": True, "keep": keep}, device=device)
    expected, found = (differentiate(each, TokenMean(), batches).tensors() for each in (plain, model))
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert device.sent == 3 * len(batches)


def test_they_come_back_last_first_and_one_ahead(make_model, recomputed, batches):
    device = Separate()
    model = recomputed(make_model("tiny", num_layers=3), {"offload": True}, device=device)
    differentiate(model, TokenMean(), batches[:1])
    assert device.log == [("back", 2), ("start", 1), ("back", 1), ("start", 0), ("back", 0)]


@pytest.mark.gpu
def test_a_tensor_comes_back_from_pinned_memory_as_it_went():
    from xtuner_core.builtin.cuda.device import open_device

    device = open_device(None, local_rank=0)
    sent = torch.randn(1 << 20, device=device.torch_device)
    expected = sent.cpu()
    copy = device.to_host(sent)
    del sent
    noise = torch.randn(1 << 20, device=device.torch_device)
    copy.start()
    assert torch.equal(copy.tensor().cpu(), expected)
    assert noise.isfinite().all()
    device.close()
