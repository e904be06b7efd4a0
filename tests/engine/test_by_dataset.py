"""The loss of each dataset: that of its documents alone, under every split and reduction, at no cost in bits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from xtuner_core.builtin.cross_entropy.loss import DocumentMean, TokenMean
from xtuner_core.contracts.batch import DATASET, Axis, Field, pack
from xtuner_core.engine.objective import StepTotals

NAMES = ("songs", "letters", "laws")


def marked(docs):
    """The documents, each from one of the first two datasets in turn."""
    return [replace(doc, fields={DATASET: Field(tensor=torch.tensor([n % 2]), axis=Axis.DOCUMENT)}) for n, doc in docs]


@pytest.fixture
def docs(toy):
    return marked(list(enumerate(toy.documents())))


def stepped(toy, docs, parts, *, names=NAMES, capacity=None, loss=None):
    rig = toy.rig(loss=loss)
    rig.engine.datasets = names
    result = rig.engine.step(toy.split(docs, parts, capacity=capacity), steps=10)
    return result, [parameter.detach().clone() for parameter in rig.model.parameters()]


@pytest.mark.parametrize("loss", [TokenMean, DocumentMean])
@pytest.mark.parametrize(("parts", "capacity"), [(1, None), (3, 64), (12, 9)])
def test_it_is_the_loss_of_a_step_on_the_documents_of_that_dataset_alone(toy, docs, loss, parts, capacity):
    result, _ = stepped(toy, docs, parts, capacity=capacity, loss=loss())
    alone = [stepped(toy, docs[first::2], 1, loss=loss())[0].loss for first in (0, 1)]
    assert dict(result.loss_by_dataset) == {
        "songs": pytest.approx(alone[0], rel=1e-12),
        "letters": pytest.approx(alone[1], rel=1e-12),
    }
    assert abs(alone[0] - alone[1]) > 1e-3


def test_losses_by_dataset_weighted_by_their_denominators_are_the_whole_loss(toy, docs):
    result, _ = stepped(toy, docs, 3)
    totals = StepTotals.of(TokenMean(), toy.split(docs, 3), NAMES)
    assert list(totals.datasets) == list(NAMES)
    assert sum(totals.datasets.values()) == totals.denominator
    whole = sum(result.loss_by_dataset.get(name, 0) * part for name, part in totals.datasets.items())
    assert whole / totals.denominator == pytest.approx(result.loss, rel=1e-12)


def test_telling_them_apart_changes_no_bit_of_loss_gradient_and_weights(toy, docs):
    (told, weights), (plain, others) = stepped(toy, docs, 3), stepped(toy, docs, 3, names=())
    assert (told.loss, told.grad_norm, told.statistics) == (plain.loss, plain.grad_norm, plain.statistics)
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
    assert dict(plain.loss_by_dataset) == {}


def test_one_dataset_or_batches_that_do_not_say_have_no_such_loss(toy, docs):
    assert dict(stepped(toy, docs, 2, names=("songs",))[0].loss_by_dataset) == {}
    assert dict(stepped(toy, toy.documents(), 2)[0].loss_by_dataset) == {}


def test_the_model_is_told_nothing_of_them(toy, docs):
    rig = toy.rig()
    rig.engine.datasets = NAMES
    rig.engine.step([pack(docs)], steps=10)
    assert [list(seen) for seen in rig.model.followed] == [["expert_load"]]
