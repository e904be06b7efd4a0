"""The loss against float64 formulas, and its indifference to how the work is split."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from xtuner_core.builtin.cross_entropy.config import CrossEntropyConfig
from xtuner_core.builtin.cross_entropy.loss import build
from xtuner_core.contracts.batch import IGNORE, Document, PackedBatch, pack
from xtuner_core.contracts.loss import Loss, TokenScores

VOCABULARY = 11
REDUCTIONS = pytest.mark.parametrize("reduction", ["token", "document"])


def documents() -> list[Document]:
    """Eight documents with fractional weights, unlabelled positions, and one without any weight."""
    random = torch.Generator().manual_seed(5)
    made = []
    for length in (5, 9, 3, 1, 7, 4, 6, 8):
        ids = torch.randint(VOCABULARY, (length,), generator=random)
        labels = torch.randint(VOCABULARY, (length,), generator=random)
        labels[torch.rand(length, generator=random) < 0.2] = IGNORE
        made.append(Document(token_ids=ids, labels=labels, weights=torch.rand(length, generator=random)))
    made[2] = Document(token_ids=made[2].token_ids, labels=made[2].labels, weights=torch.zeros(3))
    return made


def table() -> Tensor:
    """Log-probabilities of a next token after each token, float64 [V, V]."""
    random = torch.Generator().manual_seed(6)
    return torch.randn(VOCABULARY, VOCABULARY, generator=random, dtype=torch.float64).log_softmax(-1)


def scores(batch: PackedBatch, log_probs_VV: Tensor) -> TokenScores:
    chosen_T = log_probs_VV[batch.token_ids].gather(1, batch.labels.clamp(min=0)[:, None])[:, 0]
    return TokenScores(log_probs_T=torch.where(batch.labels >= 0, chosen_T, 0.0))


def value_and_gradient(loss: Loss, packs: Sequence[PackedBatch]) -> tuple[float, Tensor]:
    log_probs_VV = table().requires_grad_()
    denominator = sum(loss.denominator(batch) for batch in packs)
    value = sum(loss.total(scores(batch, log_probs_VV), batch) / denominator for batch in packs)
    value.backward()
    return float(value.detach()), log_probs_VV.grad


def expected(reduction: str) -> float:
    log_probs = table()
    per_document = []
    for document in documents():
        rows = zip(
            document.token_ids.tolist(), document.labels.tolist(), document.weights.double().tolist(), strict=True
        )
        terms = [(w * -float(log_probs[t, y]), w) for t, y, w in rows if y >= 0]
        per_document.append((sum(n for n, _ in terms), sum(w for _, w in terms)))
    if reduction == "token":
        return sum(n for n, _ in per_document) / sum(w for _, w in per_document)
    means = [n / w for n, w in per_document if w > 0]
    return sum(means) / len(means)


@REDUCTIONS
def test_it_equals_the_formula_in_float64(reduction: str):
    value, _ = value_and_gradient(build(CrossEntropyConfig(reduction=reduction)), [pack(documents())])
    assert value == pytest.approx(expected(reduction), rel=1e-12)


@REDUCTIONS
@pytest.mark.parametrize("groups", [[8], [1] * 8, [3, 5], [4, 1, 3]], ids=str)
@pytest.mark.parametrize("capacity", [None, 64])
def test_no_split_into_packs_and_no_filler_changes_value_or_gradient(
    reduction: str, groups: list[int], capacity: int | None
):
    loss = build(CrossEntropyConfig(reduction=reduction))
    whole, whole_grad = value_and_gradient(loss, [pack(documents())])
    left = iter(documents())
    packs = [pack([next(left) for _ in range(count)], capacity=capacity) for count in groups]
    value, grad = value_and_gradient(loss, packs)
    assert value == pytest.approx(whole, rel=1e-12)
    torch.testing.assert_close(grad, whole_grad, rtol=0, atol=1e-12)


def test_the_denominators_are_the_labelled_weight_and_the_documents_with_any():
    batch = pack(documents(), capacity=64)
    weight = sum(float(d.weights[d.labels >= 0].double().sum()) for d in documents())
    counting = sum(bool(d.weights[d.labels >= 0].sum() > 0) for d in documents())
    assert float(build(CrossEntropyConfig()).denominator(batch)) == pytest.approx(weight, rel=1e-6)
    assert float(build(CrossEntropyConfig(reduction="document")).denominator(batch)) == counting


@REDUCTIONS
def test_a_pack_of_filler_alone_adds_nothing(reduction: str):
    loss = build(CrossEntropyConfig(reduction=reduction))
    nothing = Document(
        token_ids=torch.zeros(4, dtype=torch.long), labels=torch.full((4,), IGNORE), weights=torch.zeros(4)
    )
    batch = pack([nothing])
    assert float(loss.denominator(batch)) == 0
    assert float(loss.total(scores(batch, table()), batch)) == 0
