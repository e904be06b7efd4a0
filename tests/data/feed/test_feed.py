"""The feed: every target once an epoch, labels shifted across cuts, a position that is exact."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xtuner_core.contracts.batch import DATASET, IGNORE, PackedBatch
from xtuner_core.contracts.dataset import Origin, TokenRecord
from xtuner_core.data.feed import Budget, Feed
from xtuner_core.errors import ConfigError, DataError

BUDGET = Budget(tokens_per_step=64, micro_batch_tokens=16, document_tokens=8)


@pytest.fixture
def feed(corpora, services):
    """Two datasets, of 30 and 11 documents; every token of the first is below 5000, of the second above."""

    def make(budget: Budget = BUDGET, **given) -> Feed:
        datasets = given.pop("datasets", None) or {
            "one": corpora.Listed(corpora.tokens(30)),
            "two": corpora.Listed(corpora.tokens(11, base=5000)),
        }
        return Feed.open(services(datasets=datasets, workers=0, **{"window": 12, **given}), corpora.Ids(), budget)

    return make


def run(feed: Feed, result, steps: int) -> list[list[PackedBatch]]:
    """Train on some steps."""
    done, first = [], feed.state_dict()["step"]
    for step, batches in enumerate(feed.batches(steps), first + 1):
        feed.trained(result(step))
        done.append(batches)
    return done


def targets(batches: list[list[PackedBatch]]) -> Counter[int]:
    return Counter(label for step in batches for batch in step for label in batch.labels.tolist() if label != IGNORE)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12), limit=st.integers(1, 16), window=st.integers(1, 9))
def test_every_target_is_trained_exactly_once_an_epoch(corpora, services, result, sizes, limit, window):
    records = corpora.tokens(len(sizes), sizes=[*sizes])
    expected = Counter(token for record in records for token in record.token_ids[1:])
    if not expected:
        return
    budget = Budget(tokens_per_step=16, micro_batch_tokens=16, document_tokens=limit)
    with tempfile.TemporaryDirectory() as folder:
        made = services(datasets={"one": corpora.Listed(records)}, cache=Path(folder), workers=0, window=window)
        feed = Feed.open(made, corpora.Ids(), budget)
        assert targets(run(feed, result, feed.steps_per_epoch)) == expected
        assert feed.summary()["epochs"] == feed.state_dict()["epoch"] == 1


def test_batches_have_the_budgets_shape_and_documents_do_not_touch(feed, result):
    for step in run(feed(), result, 6):
        assert [len(batch.token_ids) for batch in step] == [16] * 4
        for batch in step:
            for ids, labels in documents(batch):
                assert len(ids) <= BUDGET.document_tokens
                # the tokens of a document are consecutive numbers, and no other's follow on them
                assert labels == [number + 1 for number in ids]
                assert ids == list(range(ids[0], ids[0] + len(ids)))


def documents(batch: PackedBatch) -> list[tuple[list[int], list[int]]]:
    sizes = list(batch.lengths)
    pairs = zip(batch.token_ids.split(sizes), batch.labels.split(sizes), strict=True)
    return [(ids.tolist(), labels.tolist()) for ids, labels in pairs][: batch.documents]


def test_each_document_carries_the_dataset_that_it_is_from(feed, result):
    for batch in (batch for step in run(feed(), result, 6) for batch in step):
        assert batch.fields[DATASET].tensor.tolist() == [int(ids[0] >= 5000) for ids, _ in documents(batch)]


def test_weights_are_shifted_with_the_labels_and_what_counts_nothing_has_none(corpora, feed, result):
    record = TokenRecord(
        origin=Origin("w", 1), token_ids=[10, 11, 12, 13, 14, 15], weights=[9.0, 0.0, 1.0, 0.5, 0.0, 2.0]
    )
    budget = Budget(tokens_per_step=6, micro_batch_tokens=6, document_tokens=3)
    ((first,), (second,)) = run(feed(budget, datasets={"w": corpora.Listed([record])}, shuffle=False), result, 2)
    assert first.token_ids.tolist() == second.token_ids.tolist() == [10, 11, 12, 13, 14, 0]
    assert first.labels.tolist() == [IGNORE, 12, 13, IGNORE, 15, IGNORE]
    assert first.weights.tolist() == [0.0, 1.0, 0.5, 0.0, 2.0, 0.0]


def same(one: list[list[PackedBatch]], other: list[list[PackedBatch]]) -> bool:
    pairs = [pair for a, b in zip(one, other, strict=True) for pair in zip(a, b, strict=True)]
    return all(torch.equal(a.token_ids, b.token_ids) and a.lengths == b.lengths for a, b in pairs)


@pytest.mark.parametrize("taken", [0, 1, 2, 5, 6, 9])
def test_from_any_saved_position_the_same_batches_follow(feed, result, taken):
    whole = run(feed(), result, 12)
    begun = feed()
    first = run(begun, result, taken)
    resumed = feed()
    resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    assert same([*first, *run(resumed, result, 12 - taken)], whole)


def test_batches_that_were_handed_out_and_not_trained_on_come_again(feed, result):
    whole, ahead = run(feed(), result, 8), feed()
    batches = ahead.batches(8)
    handed_out = [next(batches) for _ in range(5)]
    ahead.trained(result(1))
    ahead.trained(result(2))
    resumed = feed()
    resumed.load_state_dict(ahead.state_dict())
    assert same(handed_out, whole[:5])
    assert same(run(resumed, result, 6), whole[2:])
    assert same(list(ahead.batches(6)), whole[2:])


def test_several_feeds_on_the_same_stores_do_not_disturb_each_other(feed, result):
    one, other = feed(), feed()
    ahead, behind = one.batches(6), other.batches(6)
    first = [next(ahead) for _ in range(6)]
    assert same(first, list(behind))


def test_seeds_and_epochs_give_other_orders_and_no_shuffling_the_order_of_the_files(feed, result):
    budget = Budget(tokens_per_step=16, micro_batch_tokens=16, document_tokens=8)
    one_epoch = feed(budget).steps_per_epoch
    runs = [run(feed(budget, seed=seed), result, one_epoch) for seed in range(2)]
    assert not same(runs[0], runs[1])
    straight = run(feed(budget, shuffle=False, epochs={"one": 1.0}), result, one_epoch - 3)
    starts = [ids[0] for step in straight for batch in step for ids, _ in documents(batch) if ids[0] < 5000]
    assert max(starts[:8]) < min(starts[-8:])


def test_without_shuffling_the_packs_of_a_window_come_by_their_first_document(corpora, feed, result):
    budget = Budget(tokens_per_step=16, micro_batch_tokens=16, document_tokens=8)
    one = feed(budget, datasets={"one": corpora.Listed(corpora.tokens(12))}, shuffle=False, window=99)
    packs = [batch for (batch,) in run(one, result, one.steps_per_epoch)]
    first = [min(ids[0] for ids, _ in documents(batch)) for batch in packs]
    assert first == sorted(first)
    assert len(first) > 3


def test_the_realised_shares_are_those_of_the_weights(feed, result):
    mixed = feed(weights={"one": 1.0, "two": 3.0})
    run(mixed, result, 40)
    found = mixed.summary()["datasets"]
    assert found["two"]["share"] == pytest.approx(0.75, abs=0.02)
    assert found["one"]["share"] + found["two"]["share"] == 1.0
    assert found["one"]["trained_tokens"] + found["two"]["trained_tokens"] == pytest.approx(
        mixed.summary()["fill"] * 40 * 64
    )


def test_names_are_checked_before_anything_is_tokenised(corpora, feed):
    with pytest.raises(ConfigError, match="'onne'"):
        feed(weights={"onne": 1.0}, datasets={"one": corpora.Buggy(corpora.tokens(3))})


def test_a_document_over_the_budget_is_refused_by_place_and_length(corpora, feed):
    records = corpora.tokens(10, sizes=[5, 9, 3])
    records[6] = TokenRecord(origin=Origin("listed.jsonl", 7), token_ids=list(range(40)))
    with pytest.raises(DataError) as caught:
        feed(datasets={"one": corpora.Listed(records)}, over_budget="refuse")
    assert "listed.jsonl:7 of dataset one has 39 tokens" in caught.value.message
    assert "document_tokens=8" in caught.value.message
    assert "data.over_budget" in caught.value.fix
    feed(datasets={"one": corpora.Listed(records[:6])}, over_budget="refuse")


def test_what_is_cut_is_counted_and_what_is_lost_is_told(corpora, feed, result, log):
    datasets = {"one": corpora.Listed(corpora.tokens(6, sizes=[20, 9, 1]))}
    split, truncated = (feed(datasets=datasets, over_budget=how) for how in ("split", "truncate"))
    of_split, of_truncated = (each.summary()["datasets"]["one"] for each in (split, truncated))
    assert (of_split["split"], of_split["truncated"], of_split["tokens"]) == (2, 0, 54)
    assert (of_truncated["split"], of_truncated["truncated"], of_truncated["tokens"]) == (0, 2, 32)
    assert of_split["without_target"] == 2
    assert log.of("data.truncated") == [{"dataset": "one", "documents": 2, "tokens": 22}]
    assert log.of("data.without_target")[0] == {"dataset": "one", "documents": 2}


def test_after_a_step_fill_imbalance_and_epoch_are_told(feed, result):
    begun = feed()
    (first, *_), before = begun.batches(3), begun.state_dict()
    metrics = begun.trained(result(1))
    assert metrics["data.fill"] == sum(batch.tokens for batch in first) / 64
    assert metrics["data.imbalance"] >= 1.0
    assert 0 < metrics["data.epoch"] < 1
    assert (before["step"], begun.state_dict()["step"]) == (0, 1)


def test_with_other_data_or_settings_training_goes_on_after_the_same_share_of_the_epoch(feed, result, log):
    begun = feed()
    run(begun, result, 3)
    share = begun.summary()["epochs"]
    resumed = feed(window=6)
    resumed.load_state_dict(begun.state_dict())
    (told,) = log.of("data.position_estimated")
    assert told["changed"] == ["window"]
    assert resumed.summary()["epochs"] == pytest.approx(share, abs=0.2)
    assert resumed.state_dict()["step"] == 3


def test_nothing_to_train_on_is_refused(corpora, feed):
    for nothing in ([], corpora.tokens(3, sizes=[1])):
        with pytest.raises(DataError, match="nothing to train on"):
            feed(datasets={"one": corpora.Listed(nothing)})
