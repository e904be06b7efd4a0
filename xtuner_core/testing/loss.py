"""The contract suite of losses. T tokens of a pack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from xtuner_core.contracts.batch import Axis, Document, Field, PackedBatch, pack
from xtuner_core.contracts.loss import Loss, TokenScores
from xtuner_core.host import Host
from xtuner_core.registry import Offer
from xtuner_core.testing.documents import PACKINGS, random_documents
from xtuner_core.testing.suite import OfferSuite

LOG_PROBS, ENTROPY = "testing_log_probs", "testing_entropy"
"""Named fields under which a document's scores travel through any packing."""


class LossContract(OfferSuite, ABC):
    """What holds for every loss, over documents whose log-probabilities are given, in float64."""

    slot: ClassVar[str] = "loss"

    @abstractmethod
    def expected(self, config: Any, scores: TokenScores, batch: PackedBatch) -> Tensor:
        """The loss of a step of one micro-batch, by a formula of the test's own: total over denominator."""

    def documents(self) -> list[Document]:
        """Documents with what the loss reads of them; override it to add named fields."""
        return random_documents(50)

    @pytest.fixture
    def config(self, host: Host, offered: Offer, case: int) -> Any:
        """The configuration of a case."""
        return self.parts(host, offered, case).config("loss")

    @pytest.fixture
    def loss(self, host: Host, offered: Offer, case: int) -> Loss:
        """The loss of a case."""
        made: Loss = self.parts(host, offered, case).make("loss")
        return made

    @pytest.fixture
    def scored(self) -> list[Document]:
        """The documents, each with random log-probabilities and entropies."""
        draw = torch.Generator().manual_seed(11)
        return [with_scores(document, draw) for document in self.documents()]

    def test_it_equals_a_formula_of_the_tests_own(self, loss: Loss, config: Any, scored: list[Document]) -> None:
        """Within 1e-12."""
        batch = pack(scored, capacity=_tokens(scored) + 9)
        expected = self.expected(config, scores_of(batch), batch)
        torch.testing.assert_close(value(loss, [batch]), expected.double(), rtol=1e-12, atol=0)

    def test_packing_and_splitting_change_nothing(self, loss: Loss, scored: list[Document]) -> None:
        """Neither the value of a step nor the gradient at any log-probability, within 1e-12."""
        whole = value(loss, PACKINGS[0](scored, 1))
        grads = gradients(loss, [scored])
        for packing in PACKINGS:
            for parts in (1, 2, 8):
                found = value(loss, packing(scored, parts))
                torch.testing.assert_close(found, whole, rtol=1e-12, atol=0, msg=f"{packing.__name__} in {parts}")
        split = gradients(loss, [scored[:3], scored[3:4], scored[4:]])
        torch.testing.assert_close(split, grads, rtol=1e-12, atol=1e-15)

    def test_filler_changes_nothing(self, loss: Loss, scored: list[Document]) -> None:
        """Total and denominator alike; no gradient reaches it."""
        bare, filled = pack(scored), pack(scored, capacity=_tokens(scored) + 31)
        assert torch.equal(loss.denominator(filled), loss.denominator(bare))
        scores = scores_of(filled, requires_grad=True)
        total = loss.total(scores, filled)
        torch.testing.assert_close(total, loss.total(scores_of(bare), bare), rtol=1e-13, atol=0)
        (grad_T,) = torch.autograd.grad(total, scores.log_probs_T)
        assert grad_T[: filled.tokens].any()
        assert not grad_T[filled.tokens :].any()

    def test_the_denominator_is_a_float64_number_known_before_any_score(
        self, loss: Loss, scored: list[Document]
    ) -> None:
        """And not negative."""
        found = loss.denominator(pack(scored))
        assert (found.dtype, found.shape, found.requires_grad) == (torch.float64, (), False)
        assert found.item() > 0

    def test_weights_of_zero_give_zero_and_no_nan(self, loss: Loss, scored: list[Document]) -> None:
        """In value, denominator and gradient."""
        idle = [replace(document, weights=torch.zeros(len(document))) for document in scored]
        batch = pack(idle)
        scores = scores_of(batch, requires_grad=True)
        total = loss.total(scores, batch)
        assert (total.item(), loss.denominator(batch).item()) == (0.0, 0.0)
        (grad_T,) = torch.autograd.grad(total, scores.log_probs_T, allow_unused=True, materialize_grads=True)
        assert not grad_T.any()

    def test_its_gradient_is_that_of_finite_differences(self, loss: Loss, scored: list[Document]) -> None:
        """At the log-probabilities, and at the entropies where it asks for them."""
        batch = pack(scored[:4])
        scores = scores_of(batch, requires_grad=True)
        entropies = [scores.entropy_T] if loss.entropy and scores.entropy_T is not None else []

        def total(log_probs_T: Tensor, entropy_T: Tensor | None = None) -> Tensor:
            return loss.total(TokenScores(log_probs_T=log_probs_T, entropy_T=entropy_T), batch)

        assert torch.autograd.gradcheck(total, [scores.log_probs_T, *entropies])


def scores_of(batch: PackedBatch, *, requires_grad: bool = False) -> TokenScores:
    """The scores that travelled with the documents of a pack."""
    log_probs_T, entropy_T = (batch.named(name).clone().requires_grad_(requires_grad) for name in (LOG_PROBS, ENTROPY))
    return TokenScores(log_probs_T=log_probs_T, entropy_T=entropy_T)


def value(loss: Loss, batches: Sequence[PackedBatch]) -> Tensor:
    """The loss of a step over these micro-batches, float64."""
    total = torch.stack([loss.total(scores_of(batch), batch).double() for batch in batches]).sum()
    return total / torch.stack([loss.denominator(batch) for batch in batches]).sum()


def gradients(loss: Loss, split: Sequence[Sequence[Document]]) -> Tensor:
    """Gradient of the step's loss at every log-probability, in the order of the documents."""
    batches = [pack(members) for members in split]
    denominator = torch.stack([loss.denominator(batch) for batch in batches]).sum()
    found: list[Tensor] = []
    for batch in batches:
        scores = scores_of(batch, requires_grad=True)
        found += torch.autograd.grad(loss.total(scores, batch) / denominator, scores.log_probs_T)
    return torch.cat(found)


def with_scores(document: Document, draw: torch.Generator) -> Document:
    """Give a document random log-probabilities (0 where there is no label) and entropies, float64."""
    labelled_T = document.labels >= 0
    log_probs_T = torch.rand(len(document), generator=draw, dtype=torch.float64).clamp(min=1e-3).log() * labelled_T
    entropy_T = torch.rand(len(document), generator=draw, dtype=torch.float64)
    added = {LOG_PROBS: Field(tensor=log_probs_T, axis=Axis.TOKEN), ENTROPY: Field(tensor=entropy_T, axis=Axis.TOKEN)}
    return replace(document, fields={**document.fields, **added})


def _tokens(documents: Sequence[Document]) -> int:
    return sum(len(document) for document in documents)
