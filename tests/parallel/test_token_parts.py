"""Packs are filled up and cut so that nothing is lost, and what is summed over the parts is that of the whole.

T tokens, E experts, K chosen experts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from xtuner_core.builtin.cross_entropy.config import CrossEntropyConfig
from xtuner_core.builtin.cross_entropy.loss import build
from xtuner_core.contracts.batch import DATASET, Axis, Document, Field, PackedBatch, pack
from xtuner_core.contracts.loss import TokenScores
from xtuner_core.data.token_parts import empty, padded, split
from xtuner_core.engine import by_dataset
from xtuner_core.engine.objective import Objective, StepTotals
from xtuner_core.nn.balance import Segments, count_choices, load_balancing_loss, z_loss
from xtuner_core.testing import latent, random_documents, tiny_host
from xtuner_core.testing.build import build_model

EXPERTS, TOP_K = 5, 2


def fields(number: int, length: int) -> dict[str, Field]:
    return {
        DATASET: Field(tensor=torch.tensor([number % 2]), axis=Axis.DOCUMENT),
        "reward": Field(tensor=torch.arange(length) + 0.5, axis=Axis.TOKEN, pad=-1.0),
        "everywhere": Field(tensor=torch.arange(length), axis=Axis.TOKEN, pad=7, split=False),
    }


def documents() -> list[Document]:
    made = random_documents(200, count=5, longest=9)
    twice = [torch.arange(len(each)).expand(2, -1) for each in made]
    return [
        replace(each, fields=fields(number, len(each)), positions=positions)
        for number, (each, positions) in enumerate(zip(made, twice, strict=True))
    ]


@pytest.fixture(params=[0, 3], ids=["no filler", "filler"])
def whole(request: pytest.FixtureRequest) -> PackedBatch:
    made = documents()
    return padded(pack(made, capacity=sum(map(len, made)) + request.param), 4)


def test_filling_up_is_packing_with_more_filler():
    made = documents()
    tokens = sum(map(len, made))
    for filler in (0, 2):
        found = padded(pack(made, capacity=tokens + filler), 16)
        expected = pack(made, capacity=found.total)
        assert found.total % 16 == 0
        assert (found.lengths, found.filler) == (expected.lengths, expected.filler)
        names = ("token_ids", "labels", "weights", "positions", *expected.fields)
        assert all(torch.equal(found.named(name), expected.named(name)) for name in names)
        assert torch.equal(found.cu_seqlens, expected.cu_seqlens)


def test_a_pack_that_divides_stays_as_it_is():
    batch = pack([Document.of(range(8))])
    assert padded(batch, 4) is batch


@pytest.mark.parametrize("bucket", [1, 16])
def test_boundaries_grow_where_they_do_not_suffice(bucket):
    batch = pack([Document.of([1])] * 17, bucket=bucket)
    found = padded(batch, 4).cu_seqlens
    assert found.tolist() == [*range(18)] + [20] * (len(found) - 18)
    assert len(found) > 18


def test_parts_put_together_are_the_pack(whole):
    parts = split(whole, 4)
    for name in ("token_ids", "labels", "weights", "positions", "reward"):
        assert torch.equal(torch.cat([part.named(name) for part in parts], -1), whole.named(name)), name
    for part in parts:
        assert torch.equal(part.named("everywhere"), whole.named("everywhere"))
        assert torch.equal(part.named(DATASET), whole.named(DATASET))
        assert (part.lengths, part.filler, part.total) == (whole.lengths, whole.filler, whole.total)
    assert sum(part.tokens for part in parts) == whole.tokens
    assert torch.equal(torch.cat([part.document_ids() for part in parts]), whole.document_ids())


def test_a_part_that_was_not_joined_adds_nothing_up(whole):
    with pytest.raises(AssertionError, match="not been joined"):
        split(whole, 2)[0].document_sums(torch.ones(whole.total // 2))


def summed(parts: list[PackedBatch], ask: Callable[[PackedBatch], Tensor]) -> Tensor:
    """The sum of what is found of each part, whose sums run over all of them."""
    told: list[list[Tensor]] = []

    def tell(tensor: Tensor) -> Tensor:
        told[-1].append(tensor)
        return tensor

    for part in parts:
        told.append([])
        ask(replace(part, part=replace(part.part, add=tell)))
    sums = [torch.stack(each).sum(0) for each in zip(*told, strict=True)]
    found = []
    for part in parts:
        left = iter(sums)
        found.append(ask(replace(part, part=replace(part.part, add=lambda _, left=left: next(left)))))
    return torch.stack(found).sum(0)


def values(batch: PackedBatch, width: int = 1) -> Tensor:
    """Numbers of each token here, the same whether the pack is cut or not."""
    every = torch.randn(batch.total, width, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return every[batch.start : batch.start + len(batch.token_ids)]


@pytest.mark.parametrize("reduction", ["token", "document"])
def test_losses_and_those_of_each_dataset_are_sums_over_the_parts(whole, reduction):
    loss = build(CrossEntropyConfig(reduction=reduction))
    whole_of = by_dataset.denominators(loss, [whole], ["a", "b"])

    def ask(batch: PackedBatch) -> Tensor:
        scores = TokenScores(log_probs_T=values(batch)[:, 0], entropy_T=None)
        of_each = by_dataset.losses(loss, scores, batch, list(whole_of.values()))
        assert of_each is not None
        return torch.cat([loss.total(scores, batch)[None], of_each])

    torch.testing.assert_close(summed(split(whole, 4), ask), ask(whole), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scope", ["document", "micro_batch"])
def test_losses_of_a_router_are_sums_over_the_parts(whole, scope):
    def ask(batch: PackedBatch) -> Tensor:
        segments, logits_TE = Segments.of(batch, scope), values(batch, EXPERTS)
        probs_TE = logits_TE.softmax(-1)
        counts_SE = count_choices(probs_TE.topk(TOP_K).indices, EXPERTS, segments)
        balance = load_balancing_loss(probs_TE, counts_SE, segments, TOP_K)
        return torch.cat([balance[None], z_loss(logits_TE, segments.tokens)[None], counts_SE.sum(0).double()])

    torch.testing.assert_close(summed(split(whole, 4), ask), ask(whole), rtol=1e-12, atol=0)


@pytest.mark.parametrize("reduction", ["token", "document"])
@pytest.mark.parametrize("name", ["tiny", "latent"])
def test_a_pack_of_filler_alone_adds_exactly_nothing(name, reduction):
    made = [replace(each, positions=None) for each in documents()]
    full = pack(made)
    host, loss = tiny_host(objects={"latent": latent}), build(CrossEntropyConfig(reduction=reduction))
    model: Any = build_model(host, name, {}, torch.float64, spread=0.2)
    batch = empty(16, full)
    assert (batch.documents, batch.tokens, batch.total) == (0, 0, 16)
    assert batch.fields.keys() == full.fields.keys()
    assert float(loss.denominator(batch)) == 0
    terms = Objective(model, loss)(batch, StepTotals.of(loss, [full, batch], ["a", "b"]))
    assert terms.datasets is not None
    terms.total().backward()
    gradients = {name: each.grad for name, each in model.named_parameters()}
    assert None not in gradients.values()
    for found in (*terms.parts.values(), *terms.statistics.values(), terms.datasets, *gradients.values()):
        assert not found.any()
