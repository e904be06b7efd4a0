"""How documents are packed and split into micro-batches changes nothing but rounding."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig

from xtuner_core.contracts.batch import Document, PackedBatch, pack

VOCAB = 50
WITH_LOSSES = {"balance_coefficient": 0.3, "z_coefficient": 0.2}
WITHOUT = {"balance_coefficient": 0.0, "z_coefficient": 0.0}


def config(**losses: float | str) -> Qwen3MoeConfig:
    return Qwen3MoeConfig(
        vocab_size=VOCAB,
        hidden_size=24,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        moe_intermediate_size=16,
        num_experts=6,
        **losses,
    )


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 24, (64,), generator=generator).tolist()
    return [Document.of(torch.randint(VOCAB, (length,), generator=generator)) for length in lengths]


def in_order(documents: Sequence[Document], parts: int) -> list[PackedBatch]:
    """As they come, no filler."""
    size = len(documents) // parts
    return [pack(documents[i * size : (i + 1) * size]) for i in range(parts)]


def shuffled_with_filler(documents: Sequence[Document], parts: int) -> list[PackedBatch]:
    """In another order, every pack filled up to the same number of tokens."""
    order = random.Random(parts).sample(list(documents), len(documents))
    packs = [order[i::parts] for i in range(parts)]
    capacity = max(sum(len(d) for d in part) for part in packs) + 3
    return [pack(part, capacity=capacity) for part in packs]


def longest_first(documents: Sequence[Document], parts: int) -> list[PackedBatch]:
    """Each to the pack that has least so far: unequal numbers of documents."""
    packs: list[list[Document]] = [[] for _ in range(parts)]
    for document in sorted(documents, key=len, reverse=True):
        min(packs, key=lambda part: sum(len(d) for d in part)).append(document)
    return [pack(part, bucket=1) for part in packs]


def lopsided(documents: Sequence[Document], parts: int) -> list[PackedBatch]:
    """One document in every pack but the last, which holds the rest and much filler."""
    cuts = [documents[i : i + 1] for i in range(parts - 1)] + [documents[parts - 1 :]]
    return [pack(part, capacity=sum(len(d) for d in part) + 40 * (part is cuts[-1])) for part in cuts]


PACKINGS: tuple[Callable[[Sequence[Document], int], list[PackedBatch]], ...] = (
    in_order,
    shuffled_with_filler,
    longest_first,
    lopsided,
)


def step(model: nn.Module, batches: Sequence[PackedBatch]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Loss, gradients and expert load of one step, denominators over all micro-batches."""
    weight = sum(batch.weights.double().sum() for batch in batches)
    tokens = sum(batch.tokens for batch in batches)
    model.zero_grad()
    losses, loads = [], []
    for batch in batches:
        output = model(batch)
        log_probs_T, _ = model.head(output.predictions[0].hidden_TD, batch.labels)
        loss = -(log_probs_T * batch.weights).sum() / weight
        loss = loss + sum(item.coefficient * item.total / tokens for item in output.auxiliary)
        loss.backward()
        losses.append(loss.detach())
        loads.append(output.statistics["expert_load"])
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return torch.stack(losses).sum(), gradients, torch.stack(loads).sum(0)


def furthest(found: tuple, expected: tuple) -> float:
    """Largest distance of loss and gradients, each over its norm."""
    pairs = [(found[0], expected[0]), *((found[1][name], grad) for name, grad in expected[1].items())]
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


@pytest.mark.parametrize("losses", [WITH_LOSSES, WITHOUT], ids=["document_scope", "no_auxiliary"])
def test_packing_and_splitting_change_neither_loss_nor_gradients(make_model, documents, losses):
    model = make_model(config(**losses), spread=0.2)
    expected = step(model, in_order(documents, 1))
    for packing in PACKINGS:
        for parts in (1, 2, 8):
            found = step(model, packing(documents, parts))
            assert furthest(found, expected) < 1e-10, (packing.__name__, parts)
            assert torch.equal(found[2], expected[2]), (packing.__name__, parts)


def test_the_auxiliary_losses_matter_in_that_comparison(make_model, documents):
    batches = in_order(documents, 1)
    without, with_losses = (
        step(make_model(config(**losses), spread=0.2), batches) for losses in (WITHOUT, WITH_LOSSES)
    )
    name = "layers.0.feed_forward.router.weight"
    assert (with_losses[1][name] - without[1][name]).norm() > 0.1 * without[1][name].norm()


def test_a_loss_of_scope_micro_batch_depends_on_the_split(make_model, documents):
    model = make_model(config(**WITH_LOSSES, balance_scope="micro_batch"), spread=0.2)
    whole, split = (step(model, in_order(documents, parts)) for parts in (1, 8))
    assert furthest(split, whole) > 1e-4


def test_the_same_step_gives_the_same_bits(make_model, documents):
    first, second = (step(make_model(config(**WITH_LOSSES), torch.float32), in_order(documents, 2)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][name], grad) for name, grad in second[1].items())


def test_each_document_is_predicted_as_if_it_were_alone(make_model, documents):
    model = make_model(config(**WITHOUT), spread=0.2)
    packed_TD = model(pack(documents[:5], capacity=120)).predictions[0].hidden_TD
    alone = [model(pack([document])).predictions[0].hidden_TD for document in documents[:5]]
    alone_TD = torch.cat(alone)
    torch.testing.assert_close(packed_TD[: len(alone_TD)], alone_TD, rtol=0, atol=1e-12)
