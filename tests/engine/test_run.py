"""Whole runs of a toy model through the public API: compose, run, outcome."""

from __future__ import annotations

import json
import logging
import random
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from xtuner_core import Host, RunHandle, compose, run
from xtuner_core.api import (
    AlgorithmProvider,
    Hint,
    ModelProvider,
    ParallelismProvider,
    PluginInfo,
    Problem,
    Provider,
    hookimpl,
)
from xtuner_core.builtin.cpu.device import CpuDevice
from xtuner_core.contracts.counts import ParameterCount
from xtuner_core.contracts.parallelism import Parallelism
from xtuner_core.data.memory import TextCorpus
from xtuner_core.engine.build import operator_rows
from xtuner_core.errors import ComposeError, DataError, RunError, UsageError
from xtuner_core.parts import Parts

HERE = __name__


@dataclass(kw_only=True)
class ToyConfig:
    """Configuration of the toy model."""

    vocab_size: int = 300
    """Rows of the embedding."""

    @classmethod
    def from_hf(cls, config: Any) -> ToyConfig:
        return cls(vocab_size=config["vocab_size"])

    def to_hf(self) -> dict[str, Any]:
        return {"model_type": "toy", "vocab_size": self.vocab_size}

    def parameter_count(self) -> ParameterCount:
        return ParameterCount(total=10 * self.vocab_size + 30, active=5 * self.vocab_size + 30)

    def flops(self, lengths: Iterable[int]) -> int:
        return 6 * self.parameter_count().active * sum(lengths)


@dataclass(kw_only=True)
class TextsConfig:
    """Configuration of the toy dataset."""

    tokenizer: str | None = None
    """Folder of the tokenizer that it brings."""


def open_texts(config: TextsConfig, *, cache: Path) -> TextCorpus:
    def draw(split: str) -> list[str]:
        source = random.Random(split)
        return ["".join(source.choice(["abra", "cadabra ", "simsala "]) for _ in range(20)) for _ in range(12)]

    tokenizer = Path(config.tokenizer) if config.tokenizer else None
    return TextCorpus("texts", draw("train"), draw("held_out"), tokenizer=tokenizer)


class Strategy(Parallelism):
    """Notes when it is applied, and to what."""

    applied: list[tuple[str, torch.dtype]] = []  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self.name = name

    def apply(self, model: Any, context: Any) -> Any:
        assert model.embed.weight.is_meta
        self.applied.append((self.name, model.embed.weight.dtype))
        return model


def last_strategy(config: None) -> Strategy:
    return Strategy("late")


def first_strategy(config: None) -> Strategy:
    return Strategy("early")


class Failing:
    """An algorithm whose second batch cannot be had."""

    steps = 3

    def __init__(self, config: None, services: Any) -> None:
        self.after_step = lambda result: {}

    def batches(self) -> Iterable[Any]:
        from xtuner_core.contracts.batch import Document, pack

        yield [pack([Document.of([1, 2, 3])])]
        raise OSError("the disk has gone")


class Toys:
    """A plugin passed as an object."""

    toy_model: Any = None

    @hookimpl
    def xtuner_plugin(self) -> PluginInfo:
        return PluginInfo(contract="1.0", summary="toys")

    @hookimpl
    def xtuner_models(self) -> list[ModelProvider[Any]]:
        factory, config = f"{HERE}:make_toy", f"{HERE}:ToyConfig"
        return [ModelProvider(name="toy", factory=factory, config=config, hf_model_types=("toy",), summary="a toy")]

    @hookimpl
    def xtuner_algorithms(self) -> list[AlgorithmProvider[Any]]:
        return [AlgorithmProvider(name="failing", factory=f"{HERE}:Failing", loss="cross_entropy", summary="fails")]

    @hookimpl
    def xtuner_parallelisms(self) -> list[ParallelismProvider[Any]]:
        late, early = f"{HERE}:last_strategy", f"{HERE}:first_strategy"
        return [
            ParallelismProvider(name="late", factory=late, stage="data", summary="late"),
            ParallelismProvider(name="early", factory=early, stage="adapters", summary="early"),
        ]

    @hookimpl
    def xtuner_providers(self) -> list[Provider[Any]]:
        factory, config = f"{HERE}:open_texts", f"{HERE}:TextsConfig"
        return [Provider(slot="dataset", name="texts", factory=factory, config=config, summary="texts")]

    @hookimpl
    def xtuner_check(self, plan: Any, facts: Any) -> list[Problem]:
        refused = facts is not None and plan.config["seed"] == 13
        return [Problem(message=f"{facts.chip} fears 13", fix="choose another seed")] if refused else []

    @hookimpl
    def xtuner_explain(self, error: BaseException, plan: Any) -> list[Hint]:
        return [Hint("look behind the shelf")] if "disk" in str(error) else []


def make_toy(config: ToyConfig) -> Any:
    model = Toys.toy_model(vocab=config.vocab_size)
    model.config = config
    return model


@pytest.fixture(autouse=True)
def _toys(toy, monkeypatch):
    monkeypatch.setattr(Toys, "toy_model", staticmethod(toy.Toy))
    monkeypatch.setattr(Strategy, "applied", [])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=257, special_tokens=["<end>"], initial_alphabet=alphabet)
    built.train_from_iterator([], trainer)
    built.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    return folder


@pytest.fixture
def composed(tokenizer, tmp_path):
    def make(**changes):
        recipe = {
            "model": {"name": "toy"},
            "device": "cpu",
            "precision": "fp32",
            "optimizer": {"name": "adamw", "learning_rate": 0.05},
            "schedule": "constant",
            "dataset": {"texts": {"tokenizer": str(tokenizer)}},
            "algorithm": {
                "name": "pretrain",
                "steps": 6,
                "tokens_per_step": 256,
                "micro_batch_tokens": 64,
                "document_tokens": 32,
            },
            "observer": {"jsonl": {}},
            "output": str(tmp_path / "runs"),
        }
        overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        composition = compose(recipe, overrides=overrides, host=Host(objects={"toys": Toys()}))
        assert composition.problems == ()
        return composition

    return make


class Diary:
    """An observer of the caller's own."""

    def __init__(self, on_step=lambda step: None):
        self.start, self.steps, self.ends, self.act = None, [], [], on_step

    def on_start(self, start):
        self.start = start

    def on_step(self, step):
        self.steps.append(step)
        self.act(step)

    def on_end(self, end):
        self.ends.append(end)


def state_of_process():
    return (
        torch.get_default_dtype(),
        torch.get_deterministic_debug_mode(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.get_rng_state().tolist(),
        random.getstate(),
        torch.get_num_threads(),
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        list(logging.getLogger().handlers),
    )


def test_a_run_trains_evaluates_exports_and_leaves_the_process_as_it_was(composed):
    composition, diary, before = composed(), Diary(), state_of_process()
    outcome = run(composition, observers=[diary])
    assert state_of_process() == before
    assert (outcome.status, outcome.steps) == ("finished", 6)
    losses = [step.result.loss for step in diary.steps]
    assert losses[-1] < losses[0] - 0.5
    assert outcome.summary["held_out"]["bits_per_byte"] > 0
    assert {item.name for item in outcome.folder.iterdir()} == {
        "plan.json",
        "log.jsonl",
        "metrics.jsonl",
        "summary.json",
        "export",
        "tensorboard",
    }
    assert outcome.folder.name.endswith("-pretrain-toy")
    assert (outcome.folder / "plan.json").read_text() == composition.plan.to_json()
    assert json.loads((outcome.folder / "summary.json").read_text())["status"] == "finished"
    exported = load_file(outcome.folder / "export" / "model.safetensors")
    assert exported["embed.weight"].shape == (300, 5)
    assert diary.start.summary["parameters"] == 3030
    (end,) = diary.ends
    assert end.status == "finished"
    assert 0 < outcome.summary["overhead"]["share"] < 1


def test_the_same_plan_gives_the_same_bits(composed):
    first, second = Diary(), Diary()
    one, other = run(composed(), observers=[first]), run(composed(), observers=[second])
    assert [s.result.loss for s in first.steps] == [s.result.loss for s in second.steps]
    assert one.folder != other.folder
    weights = [load_file(each.folder / "export" / "model.safetensors") for each in (one, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_an_exported_run_is_where_another_begins(composed):
    first = run(composed())
    source = str(first.folder / "export")
    again = run(composed(model=source, **{"algorithm.steps": 0}))
    assert again.summary["held_out"] == first.summary["held_out"]
    weights = [load_file(each.folder / "export" / "model.safetensors") for each in (first, again)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("by", ["handle", "signal"])
def test_a_stop_ends_the_run_after_the_step_with_a_checkpoint_and_exports_where_nobody_waits(composed, by):
    handle = RunHandle()
    ways = {"handle": lambda: handle.stop("lunch"), "signal": lambda: signal.raise_signal(signal.SIGTERM)}
    diary = Diary(lambda step: ways[by]() if step.result.step == 2 else None)
    outcome = run(composed(), observers=[diary], handle=handle)
    assert (outcome.status, outcome.steps) == ("stopped", 2)
    assert outcome.summary["reason"] == {"handle": "lunch", "signal": "SIGTERM"}[by]
    assert "held_out" not in outcome.summary
    assert outcome.checkpoint == outcome.folder / "checkpoints" / "step-00000002"
    assert (outcome.checkpoint / "model" / "config.json").exists()
    # A signal of the system leaves little time; the checkpoint holds the weights.
    assert (outcome.folder / "export" / "config.json").exists() == (by == "handle")
    assert diary.ends[0].status == "stopped"


def test_an_observer_that_raises_is_named_and_logged_and_the_run_goes_on(composed, capsys):
    def fall(step):
        raise ValueError("ink is out")

    outcome = run(composed(), observers=[Diary(fall)])
    assert outcome.status == "finished"
    (failure,) = outcome.observer_failures
    assert (failure.entry, failure.event, failure.error) == ("Diary", "on_step", "ValueError: ink is out")
    lines = [json.loads(line) for line in (outcome.folder / "log.jsonl").read_text().splitlines()]
    (warning,) = [line for line in lines if line["level"] == "warning"]
    assert "Diary is disabled" in warning["event"]
    assert "ink is out" in capsys.readouterr().err
    assert outcome.summary["observer_failures"][0]["entry"] == "Diary"


def test_a_failure_is_told_to_observers_hinted_at_and_kept(composed):
    before, diary = state_of_process(), Diary()
    with pytest.raises(OSError, match="disk") as caught:
        run(composed(algorithm="failing"), observers=[diary])
    assert state_of_process() == before
    assert caught.value.__notes__ == ["raised in plugin 'toys' (object 0)", "look behind the shelf"]
    (end,) = diary.ends
    assert (end.status, end.steps) == ("failed", 1)
    summary = json.loads((diary.start.folder / "summary.json").read_text())
    assert summary["error"] == "OSError: the disk has gone"
    assert not (diary.start.folder / "export").exists()


def test_an_error_in_an_operator_is_blamed_on_its_plugin_and_the_callers(composed, monkeypatch):
    monkeypatch.setattr(torch, "_fused_adamw_", None)
    with pytest.raises(TypeError) as caught:
        run(composed())
    (note,) = caught.value.__notes__
    kernels, adamw = note.split(", called from ")
    assert kernels.startswith("raised in plugin 'kernels' (xtuner-core ")
    assert adamw.startswith("plugin 'adamw' (xtuner-core ")


def test_output_that_cannot_be_written_is_refused_before_anything_is_built(composed, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match="file"):
        run(composed(output=str(tmp_path / "file" / "runs"), algorithm="failing"))
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_holds_a_run_is_refused(composed, tmp_path):
    outcome = run(composed(), folder=tmp_path / "mine")
    assert outcome.folder == tmp_path / "mine"
    with pytest.raises(UsageError, match="already holds a run"):
        run(composed(), folder=tmp_path / "mine")


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(composed):
    with pytest.raises(DataError, match="embeds 200 ids") as caught:
        run(composed(**{"model.vocab_size": 200}))
    assert "257" in caught.value.fix


def test_a_run_without_tokenizer_is_refused(composed):
    with pytest.raises(DataError, match="no tokenizer") as caught:
        run(composed(**{"dataset.texts.tokenizer": None}))
    assert "tokenizer=DIR" in caught.value.fix


def test_a_tokenizer_that_is_named_comes_before_the_datasets(composed, tokenizer, tmp_path):
    with pytest.raises(DataError, match="elsewhere"):
        run(composed(tokenizer=str(tmp_path / "elsewhere")))
    outcome = run(composed(tokenizer=str(tokenizer), **{"dataset.texts.tokenizer": str(tmp_path / "elsewhere")}))
    assert outcome.status == "finished"


def test_plugins_may_refuse_what_the_device_turns_out_to_be(composed):
    with pytest.raises(ComposeError, match="fears 13"):
        run(composed(seed=13))


def test_strategies_are_applied_by_stage_around_the_precision(composed):
    composition = composed(parallelism={"late": {}, "early": {}}, precision="bf16")
    assert run(composition).status == "finished"
    assert Strategy.applied == [("early", torch.bfloat16), ("late", torch.float32)]


def test_bfloat16_trains_too_and_exports_what_it_computes_with(composed):
    diary = Diary()
    outcome = run(composed(precision="bf16"), observers=[diary])
    losses = [step.result.loss for step in diary.steps]
    assert losses[-1] < losses[0] - 0.5
    exported = load_file(outcome.folder / "export" / "model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16}


def test_operators_are_shown_before_a_run_as_they_are_in_it(composed):
    diary = Diary()
    composition = composed(operator={"log_probs": "reference"})
    parts = Parts(composition.require(), composition.host)
    before = [row.as_data() for row in operator_rows(parts, CpuDevice(None))]
    run(composition, observers=[diary])
    assert diary.start.summary["operators"] == before
    chosen = {(row["operator"], row["implementation"]) for row in before}
    assert chosen == {("log_probs", "reference"), ("adamw", "cpu")}


def test_a_pin_that_nothing_uses_is_refused(composed):
    with pytest.raises(ComposeError, match="attention"):
        run(composed(operator={"attention": "reference"}))


def test_runs_of_two_threads_follow_each_other(composed):
    outcomes = []
    compositions = [composed(), composed()]
    threads = [threading.Thread(target=lambda c=c: outcomes.append(run(c))) for c in compositions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
    assert outcomes[0].summary["loss"] == outcomes[1].summary["loss"]


def test_a_run_inside_a_run_is_refused(composed):
    refused = []

    def again(step):
        with pytest.raises(RunError, match="within a run") as caught:
            run(composed())
        refused.append(caught.value)

    outcome = run(composed(), observers=[Diary(again)])
    assert outcome.observer_failures == ()
    assert len(refused) == 6


def test_warnings_of_other_packages_reach_the_log_while_the_run_goes_on(composed):
    diary = Diary(lambda step: logging.getLogger("elsewhere").warning("mind the %s", "gap"))
    outcome = run(composed(**{"algorithm.steps": 1}), observers=[diary])
    lines = [json.loads(line) for line in (outcome.folder / "log.jsonl").read_text().splitlines()]
    assert [line["logger"] for line in lines if line["event"] == "mind the gap"] == ["elsewhere"]
