"""Models whose parameters ranks hold parts of, on the way from the meta device to memory."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from xtuner_core.hf.materialise import materialise


@pytest.fixture
def _rank_one_of_four():
    dist.init_process_group("fake", rank=1, world_size=4, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_rank_one_of_four")
def test_a_rank_gets_memory_for_its_part_and_ties_hold():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with torch.device("meta"):
        model = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 10, bias=False))
        model[1].weight = model[0].weight
    fully_shard(model, mesh=init_device_mesh("cpu", (4,)))
    materialise(model, "cpu", torch.float64)
    weight = model[0].weight
    assert (tuple(weight.shape), tuple(weight.to_local().shape)) == ((10, 6), (3, 6))
    assert (weight.device.type, weight.to_local().device.type, weight.dtype) == ("cpu", "cpu", torch.float64)
    assert model[1].weight is weight
    assert weight.requires_grad
