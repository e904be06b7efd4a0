"""What each rank of `test_ulysses.py` does: compare attention, and whole models, with one process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from xtuner_core_kernels.attention import reference

from xtuner_core.builtin.cross_entropy.config import CrossEntropyConfig
from xtuner_core.builtin.cross_entropy.loss import build as build_loss
from xtuner_core.builtin.ulysses.config import UlyssesConfig
from xtuner_core.builtin.ulysses.strategy import Ulysses
from xtuner_core.contracts.batch import PackedBatch, pack
from xtuner_core.contracts.operator import OperatorTable
from xtuner_core.data.token_parts import padded, split
from xtuner_core.engine.objective import Objective, StepTotals
from xtuner_core.engine.ranks.groups import RankGroups
from xtuner_core.engine.ranks.scatter import join
from xtuner_core.hf.materialise import materialise
from xtuner_core.nn import AttentionCore
from xtuner_core.records import Dimension
from xtuner_core.testing import latent, random_documents, tiny_host
from xtuner_core.testing.build import bind, build_model, fill, meta_model
from xtuner_core.testing.steps import differentiate, distance
from xtuner_core.views import Claim, Views, divide

CASES: dict[str, dict[str, Any]] = {
    "heads": {"num_heads": 4, "num_kv_heads": 4},
    "one key head": {"num_heads": 8, "num_kv_heads": 1},
    "key heads that no rank count divides": {"num_heads": 12, "num_kv_heads": 3},
    "window": {"num_heads": 4, "num_kv_heads": 2, "window": 3},
    "sinks": {"num_heads": 8, "num_kv_heads": 2, "sinks": True},
    "values of another width": {"num_heads": 4, "num_kv_heads": 4, "value_dim": 5, "scale": 0.3},
}
LENGTHS = 6


def rank_groups(size: int) -> RankGroups:
    dimension = Dimension(name="dense.sequence", size="size", work="tokens")
    views = divide(size, [Claim(key="parallelism.ulysses", dimension=dimension, size=size)])
    assert isinstance(views, Views)
    return RankGroups(views, dist.get_rank(), device_type="cpu")


def apply(model: nn.Module, ranks: RankGroups) -> nn.Module:
    return Ulysses(UlyssesConfig(size=ranks.world_size)).apply(model, SimpleNamespace(ranks=ranks))


def whole_pack(size: int) -> PackedBatch:
    return padded(pack(random_documents(200, count=LENGTHS, longest=17)), size)


def serve(payload: None) -> dict[str, float]:
    """The largest distance from one process, by case."""
    ranks = rank_groups(dist.get_world_size())
    batch = whole_pack(ranks.world_size)
    part = join(split(batch, ranks.world_size)[ranks.rank], ranks)
    found = {name: attention(settings, ranks, batch, part) for name, settings in CASES.items()}
    for name in ("tiny", "latent"):
        found[f"{name}: losses and gradients"] = of_model(name, ranks, batch, part)
    return found


def attention(settings: dict[str, Any], ranks: RankGroups, batch: PackedBatch, part: PackedBatch) -> float:
    plain = AttentionCore(head_dim=6, layer=0, **settings).double()
    shared = nn.ModuleDict({"core": AttentionCore(head_dim=6, layer=0, **settings).double()})
    apply(shared, ranks)
    cores = (plain, shared["core"])
    for core in cores:
        if core.sinks is not None:
            nn.init.normal_(core.sinks, generator=torch.Generator().manual_seed(1))
        uses = core.uses(device="cpu", dtype=torch.float64).values()
        core.bind(OperatorTable(dict.fromkeys(uses, reference.IMPLEMENTATION)), device="cpu", dtype=torch.float64)
    here = slice(part.start, part.start + len(part.token_ids))
    whole = [tensor.requires_grad_() for tensor in _inputs(plain, batch.total)]
    mine = [tensor.detach()[here].requires_grad_() for tensor in whole]
    expected, got = plain(*whole, batch), cores[1](*mine, part)
    weights = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (expected * weights).sum().backward()
    (got * weights[here]).sum().backward()
    pairs = [(got, expected[here]), *((a.grad, b.grad[here]) for a, b in zip(mine, whole, strict=True))]
    if plain.sinks is not None:
        dist.all_reduce(cores[1].sinks.grad)
        pairs.append((cores[1].sinks.grad, plain.sinks.grad))
    return max(distance(a, b) for a, b in pairs)


def _inputs(core: AttentionCore, tokens: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = (
        (core.num_heads, core.head_dim),
        (core.num_kv_heads, core.head_dim),
        (core.num_kv_heads, core.value_dim),
    )
    return [torch.randn(tokens, *shape, dtype=torch.float64, generator=random) for shape in shapes]


def of_model(name: str, ranks: RankGroups, batch: PackedBatch, part: PackedBatch) -> float:
    """With means over documents, so that sums of weights run over the parts too."""
    host, loss = tiny_host(objects={"latent": latent}), build_loss(CrossEntropyConfig(reduction="document"))
    expected = differentiate(build_model(host, name, {}, torch.float64, spread=0.2), loss, [batch])
    model = apply(meta_model(host, name, {}, torch.float64), ranks)
    materialise(model, "cpu")
    fill(model, 0, 0.2)
    bind(host, model.modules(), torch.float64)
    terms = Objective(model, loss)(part, StepTotals.of(loss, [batch]))
    terms.total().backward()
    found = {key: value.detach().clone() for key, value in {**terms.parts, **terms.statistics}.items()}
    found |= {f"gradient of {key}": each.grad for key, each in model.named_parameters() if each.grad is not None}
    for tensor in found.values():
        dist.all_reduce(tensor)
    theirs = expected.tensors()
    assert found.keys() == theirs.keys(), found.keys() ^ theirs.keys()
    return max(distance(tensor, theirs[key]) for key, tensor in found.items())
