"""The source of packs: every document once an epoch, an order from the seed, a position that finds its place."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch

from xtuner_core.contracts.batch import Document, PackedBatch
from xtuner_core.data.source import PackSource, Position

LENGTHS = [3, 8, 5, 1, 8, 8, 2, 7, 4, 6, 8, 3]


def source(seed: int = 0, window: int = 5) -> PackSource:
    documents = [Document.of([index] * length) for index, length in enumerate(LENGTHS)]
    return PackSource(documents, LENGTHS, capacity=16, seed=seed, window=window)


def ids(batch: PackedBatch) -> list[int]:
    return batch.token_ids[: batch.tokens].tolist()


def test_an_epoch_holds_every_document_once():
    for epoch in range(3):
        members = Counter(index for pack in source().plan(epoch) for index in pack)
        assert members == Counter(range(len(LENGTHS)))


def test_packs_are_filled_up_to_the_capacity_and_documents_stay_apart():
    for batch, _ in islice(source().read(Position()), 20):
        assert len(batch.token_ids) == 16
        documents = batch.token_ids.split(list(batch.lengths))[: batch.documents]
        assert all(len(set(document.tolist())) == 1 for document in documents)
        assert batch.weights[batch.tokens :].sum() == 0


@pytest.mark.parametrize("taken", range(14))
def test_from_any_position_the_same_packs_follow(taken: int):
    whole = [ids(batch) for batch, _ in islice(source().read(Position()), 20)]
    position = Position()
    if taken:
        *_, (_, position) = islice(source().read(Position()), taken)
    rest = [ids(batch) for batch, _ in islice(source().read(position), 20 - taken)]
    assert rest == whole[taken:]


def test_seeds_and_epochs_give_different_orders():
    plans = [list(source(seed).plan(epoch)) for seed in range(3) for epoch in range(3)]
    assert len({str(plan) for plan in plans}) == 9


def test_the_order_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    list(source().plan(0))
    assert torch.equal(torch.get_rng_state(), state)
