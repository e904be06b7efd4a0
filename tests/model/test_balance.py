"""Losses on a router's choices equal their published formulas, written here document by document.

T tokens, E experts, K chosen experts.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xtuner_core.contracts.batch import Document, PackedBatch, pack
from xtuner_core.nn.balance import Segments, count_choices, load_balancing_loss, z_loss

EXPERTS, TOP_K, LENGTHS, FILLER = 5, 2, (4, 9, 1, 6), 7


@pytest.fixture
def batch() -> PackedBatch:
    documents = [Document.of(torch.zeros(length, dtype=torch.int64)) for length in LENGTHS]
    return pack(documents, capacity=sum(LENGTHS) + FILLER)


@pytest.fixture(name="logits_TE")
def random_logits() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(sum(LENGTHS) + FILLER, EXPERTS, dtype=torch.float64, generator=generator)
    return logits.requires_grad_()


def published(probs_TE: Tensor, experts_TK: Tensor) -> Tensor:
    """E * sum_e f_e P_e over these tokens."""
    share_E = torch.stack([(experts_TK == e).double().sum() for e in range(EXPERTS)]) / experts_TK.numel()
    return EXPERTS * (share_E * probs_TE.mean(0)).sum()


def ours(logits_TE: Tensor, segments: Segments) -> Tensor:
    probs_TE = logits_TE.softmax(-1)
    experts_TK = probs_TE.topk(TOP_K).indices
    counts_SE = count_choices(experts_TK, EXPERTS, segments)
    return load_balancing_loss(probs_TE, counts_SE, segments, TOP_K)


def test_the_document_scope_weighs_each_documents_loss_by_its_tokens(batch, logits_TE):
    probs_TE = logits_TE.softmax(-1)
    experts_TK = probs_TE.topk(TOP_K).indices
    parts = zip(probs_TE.split(batch.lengths), experts_TK.split(batch.lengths), LENGTHS, strict=False)
    expected = sum(length * published(probs, experts) for probs, experts, length in parts)
    found = ours(logits_TE, Segments.documents(batch))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    for a, b in zip(torch.autograd.grad(found, logits_TE), torch.autograd.grad(expected, logits_TE), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)


def test_the_micro_batch_scope_takes_all_real_tokens_at_once(batch, logits_TE):
    real_TE = logits_TE[: batch.tokens].softmax(-1)
    expected = batch.tokens * published(real_TE, real_TE.topk(TOP_K).indices)
    torch.testing.assert_close(ours(logits_TE, Segments.pack(batch)), expected, rtol=1e-13, atol=0)


def test_an_even_load_costs_one_a_token(batch):
    probs_TE = torch.full((batch.token_ids.shape[0], EXPERTS), 1 / EXPERTS, dtype=torch.float64)
    segments = Segments.documents(batch)
    lengths_S1 = segments.lengths_S.float()[:, None]
    even_SE = TOP_K * lengths_S1.expand(-1, EXPERTS).clone() / EXPERTS
    even_SE[segments.real :] = 0
    found = load_balancing_loss(probs_TE, even_SE, segments, TOP_K)
    assert found.item() == pytest.approx(batch.tokens, rel=1e-6)


def test_the_z_loss_is_the_sum_of_squared_log_partition_functions(batch, logits_TE):
    expected = sum(torch.log(row.exp().sum()) ** 2 for row in logits_TE[: batch.tokens])
    torch.testing.assert_close(z_loss(logits_TE, batch.tokens), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("scope", ["document", "micro_batch"])
def test_filler_counts_nowhere(batch, logits_TE, scope):
    segments = Segments.of(batch, scope)
    other_TE = logits_TE.detach().clone()
    other_TE[batch.tokens :] += torch.arange(EXPERTS) * 3.0
    assert torch.equal(ours(logits_TE, segments), ours(other_TE, segments))
    assert torch.equal(z_loss(logits_TE, batch.tokens), z_loss(other_TE, batch.tokens))
    (gradient_TE,) = torch.autograd.grad(ours(logits_TE, segments), logits_TE)
    assert not gradient_TE[batch.tokens :].any()
    counts_SE = count_choices(logits_TE.topk(TOP_K).indices, EXPERTS, segments)
    assert counts_SE.sum() == batch.tokens * TOP_K
    assert not counts_SE[segments.real :].any()
