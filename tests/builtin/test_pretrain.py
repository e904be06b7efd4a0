"""The algorithm pretrain: what it yields, where it goes on, what it measures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import ceil, log, log2
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from xtuner_core.builtin.pretrain.algorithm import Pretrain, build
from xtuner_core.builtin.pretrain.background import Background
from xtuner_core.builtin.pretrain.config import PretrainConfig
from xtuner_core.contracts.algorithm import Services, StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.data.compression import xz_bits_per_byte
from xtuner_core.errors import DataError
from xtuner_core.hf.tokenizer import load_tokenizer
from xtuner_core.testing.tiny_texts import TOKENIZER

Make = Callable[..., Services]
Result = Callable[..., StepResult]
TRAIN = [f"{n} " * length + "end" for n, length in enumerate([3, 40, 1, 17, 60, 25, 9, 33, 2, 12])]
HELD_OUT = ["In the beginning was the word. " * 5, "short", "und am Anfang war \u00fc. " * 3]
IDS = load_tokenizer(TOKENIZER).encode
CONFIG = PretrainConfig(steps=12, tokens_per_step=192, micro_batch_tokens=96, document_tokens=32)


def changed(**values: Any) -> PretrainConfig:
    return PretrainConfig(**{**vars(CONFIG), **values})


def train(algorithm: Pretrain, result: Result, upto: int | None = None) -> Iterator[Sequence[PackedBatch]]:
    """Take the algorithm's steps as a run would; with `upto`, stop after that many."""
    for step, batches in enumerate(algorithm.batches(), algorithm.step + 1):
        yield batches
        algorithm.after_step(result(step, tokens=sum(batch.tokens for batch in batches)))
        if step == upto:
            return


def same(a: Sequence[Sequence[PackedBatch]], b: Sequence[Sequence[PackedBatch]]) -> bool:
    pairs = [(x, y) for left, right in zip(a, b, strict=True) for x, y in zip(left, right, strict=True)]
    return all(torch.equal(x.token_ids, y.token_ids) and torch.equal(x.labels, y.labels) for x, y in pairs)


def targets(batches: Sequence[PackedBatch]) -> list[int]:
    return [token for batch in batches for token in real(batch, "labels").tolist()]


def real(batch: PackedBatch, name: str) -> Tensor:
    return batch.named(name)[: batch.tokens]


def test_a_step_is_micro_batches_of_exactly_the_budget(services: Make, result: Result):
    steps = list(train(build(CONFIG, services(TRAIN, HELD_OUT)), result))
    assert len(steps) == CONFIG.steps
    assert all(len(batches) == 2 for batches in steps)
    assert all(len(batch.token_ids) == 96 and max(batch.lengths[: batch.documents]) <= 32 for b in steps for batch in b)


def test_an_epoch_has_every_token_and_the_end_of_every_document_as_a_target_once(services: Make):
    algorithm = build(changed(steps=100, tokens_per_step=96), services(TRAIN, HELD_OUT))
    seen: Counter[int] = Counter()
    epoch = Counter(token for text in TRAIN for token in IDS(text)) + Counter({0: len(TRAIN)})
    for (batch,) in algorithm.batches():
        seen.update(real(batch, "labels").tolist())
        if seen.total() == epoch.total():
            break
    assert seen == epoch


def test_the_order_follows_from_the_seed_and_differs_between_epochs(services: Make, result: Result):
    one, two = (list(train(build(CONFIG, services(TRAIN, HELD_OUT)), result)) for _ in range(2))
    other = list(train(build(CONFIG, services(TRAIN, HELD_OUT, seed=1)), result))
    assert same(one, two)
    assert not same(one, other)
    # All of an epoch is one step, so that two steps hold the same documents.
    first, second = list(train(build(changed(steps=2, tokens_per_step=480), services(TRAIN, HELD_OUT)), result))
    assert Counter(targets(first)) == Counter(targets(second))
    assert not same([first], [second])


@pytest.mark.parametrize("stop", range(13))
def test_from_the_state_after_any_step_the_same_batches_follow(services: Make, result: Result, stop: int):
    whole = list(train(build(CONFIG, services(TRAIN, HELD_OUT)), result))
    first = build(CONFIG, services(TRAIN, HELD_OUT))
    begun = list(train(first, result, upto=stop)) if stop else []
    resumed = build(CONFIG, services(TRAIN, HELD_OUT))
    resumed.load_state_dict(first.state_dict())
    assert same(begun + list(train(resumed, result)), whole)


def test_batches_that_were_fetched_ahead_and_not_trained_on_come_again(services: Make, result: Result):
    whole = list(train(build(CONFIG, services(TRAIN, HELD_OUT)), result))
    ahead = build(CONFIG, services(TRAIN, HELD_OUT))
    batches = ahead.batches()
    for _ in range(5):
        next(batches)
    for step in (1, 2):
        ahead.after_step(result(step))
    resumed = build(CONFIG, services(TRAIN, HELD_OUT))
    resumed.load_state_dict(ahead.state_dict())
    assert same(list(train(resumed, result)), whole[2:])


def test_steps_follow_from_epochs_where_none_are_given(services: Make, reported: list[Any]):
    made = build(changed(steps=None, tokens_per_step=96), services(TRAIN, HELD_OUT))
    tokens = sum(len(text.encode()) + 1 for text in TRAIN)
    assert made.steps == made.feed.steps_per_epoch >= tokens / 96
    assert [event for event, _ in reported] == ["so little data makes few steps, in which a model learns little"]
    # Two packs a step: it is packs that epochs have.
    for epochs in (0.2, 1, 2.5):
        steps = build(changed(steps=None, epochs=epochs), services(TRAIN, HELD_OUT)).steps
        assert steps == ceil(epochs * made.steps / 2)


def test_shuffled_targets_keep_inputs_and_the_targets_of_each_piece_but_not_their_order(services: Make, result: Result):
    plain = next(train(build(CONFIG, services(TRAIN, HELD_OUT)), result))
    control = next(train(build(changed(shuffle_targets=True), services(TRAIN, HELD_OUT)), result))
    for a, b in zip(plain, control, strict=True):
        assert torch.equal(a.token_ids, b.token_ids)
        assert not torch.equal(a.labels, b.labels)
        pieces = zip(a.labels.split(list(a.lengths)), b.labels.split(list(b.lengths)), strict=True)
        assert all(torch.equal(x.sort().values, y.sort().values) for x, y in pieces)


def test_no_training_text_is_a_data_error(services: Make):
    with pytest.raises(DataError, match="hold nothing to train on"):
        build(CONFIG, services([], HELD_OUT))


def codes() -> tuple[int, int]:
    """Tokens to predict and bytes of the held-out text; each document has an end to predict."""
    size = sum(len(text.encode()) for text in HELD_OUT)
    return size + len(HELD_OUT), size


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_bits_per_byte_of_a_uniform_model_are_those_of_its_code_whatever_the_overlap(services: Make, overlap: float):
    tokens, size = codes()
    summary = build(changed(evaluate_overlap=overlap), services(TRAIN, HELD_OUT)).finish()
    assert summary["held_out"]["bits_per_byte"] == pytest.approx(log2(257) * tokens / size, rel=1e-6)
    assert summary["held_out"]["loss"] == pytest.approx(log(257), rel=1e-6)
    assert {name: summary["held_out"][name] for name in ("bytes", "documents", "documents_available")} == {
        "bytes": size,
        "documents": 3,
        "documents_available": 3,
    }


def test_evaluations_come_every_few_steps_and_one_at_the_end_is_not_repeated(services: Make, result: Result):
    made = services(TRAIN, HELD_OUT)
    algorithm = build(changed(steps=4, evaluate_every=2), made)
    metrics = []
    for step, _ in enumerate(algorithm.batches(), 1):
        metrics.append(algorithm.after_step(result(step)))
    assert ["held_out.bits_per_byte" in found for found in metrics] == [False, True, False, True]
    before = len(made.engine.scored)
    summary = algorithm.finish()
    assert summary["held_out"]["bits_per_byte"] == metrics[-1]["held_out.bits_per_byte"]
    assert len(made.engine.scored) == before


def test_without_held_out_text_nothing_is_evaluated_and_the_log_says_so(services: Make, reported: list[Any]):
    summary = build(changed(compare_xz=True), services(TRAIN, [])).finish()
    assert "held_out" not in summary
    assert "xz" not in summary
    assert [event for event, _ in reported] == ["nothing is evaluated: no dataset has held-out data"]


def test_the_figure_of_xz_stands_beside(services: Make):
    summary = build(changed(compare_xz=True), services(TRAIN, HELD_OUT)).finish()
    xz = xz_bits_per_byte("".join(TRAIN).encode(), "".join(HELD_OUT).encode())
    assert summary["xz"] == {"bits_per_byte": xz, "ratio": summary["held_out"]["bits_per_byte"] / xz}


def test_prompts_are_continued_as_beginnings_of_documents_and_kept_in_a_file(services: Make, tmp_path: Path):
    made = services(TRAIN, HELD_OUT)
    summary = build(changed(sample_prompts=["Once", "\u00fc"]), made).finish()
    assert made.engine.prompts == [[0, *IDS("Once")], [0, *IDS("\u00fc")]]
    expected = [{"prompt": prompt, "text": "and so on", "stop": "length"} for prompt in ("Once", "\u00fc")]
    assert summary["samples"] == expected
    lines = (tmp_path / "artifacts" / "samples-0.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 0, **sample} for sample in expected]


def test_documents_and_those_that_were_cut_are_counted(services: Make, result: Result):
    algorithm = build(CONFIG, services(TRAIN, HELD_OUT))
    filled = [batch for batches in train(algorithm, result) for batch in batches]
    summary = algorithm.finish()
    counts = summary["data"]["datasets"]["texts"]
    assert counts["documents"] == len(TRAIN)
    assert counts["split"] == sum(len(text.encode()) + 1 > 32 for text in TRAIN)
    assert summary["data"]["fill"] == pytest.approx(sum(b.tokens for b in filled) / (96 * len(filled)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tokens_per_step": 100}, "multiple of micro_batch_tokens"),
        ({"document_tokens": 97}, "document_tokens must be at most micro_batch_tokens"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"evaluate_overlap": 1.0}, "evaluate_overlap must lie in"),
        ({"sample_temperature": -0.1}, "sample_temperature must be at least 0"),
        ({"epochs": 2.0}, "steps \\(12\\) and epochs \\(2.0\\) exclude each other"),
        ({"steps": None, "epochs": 0.0}, "epochs must be positive"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(wrong: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        changed(**wrong)


def test_what_fails_in_the_background_fails_where_its_result_is_asked():
    def fail() -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        Background(fail).result()
