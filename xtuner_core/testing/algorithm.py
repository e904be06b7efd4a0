"""The contract suite of algorithms; the engine is a stand-in."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from xtuner_core.contracts.algorithm import Algorithm, Services
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.dataset import Corpus
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.hf.tokenizer import load_tokenizer
from xtuner_core.host import Host
from xtuner_core.registry import Offer
from xtuner_core.testing.batches import check_batch, same_batches
from xtuner_core.testing.fake_engine import FakeEngine, step_result
from xtuner_core.testing.suite import OfferSuite
from xtuner_core.testing.tiny_texts import TOKENIZER, tiny_texts


class AlgorithmContract(OfferSuite):
    """What holds for every algorithm; its configurations take a few steps each."""

    slot: ClassVar[str] = "algorithm"

    def corpora(self) -> Mapping[str, Corpus]:
        """The run's datasets; override it where the algorithm reads others than plain texts."""
        return {"tiny_texts": tiny_texts()}

    def tokenizer(self) -> Tokenizer:
        """The tokenizer: that of bytes."""
        return load_tokenizer(TOKENIZER)

    def size(self, config: Any) -> tuple[int, int] | None:
        """Micro-batches of a step and tokens of each, as promised; None where neither is."""
        return None

    @pytest.fixture
    def config(self, host: Host, offered: Offer, case: int) -> Any:
        """The configuration of a case."""
        return self.parts(host, offered, case).config("algorithm")

    @pytest.fixture
    def make(self, host: Host, offered: Offer, case: int, tmp_path: Path) -> Any:
        """Makes the algorithm with a seed."""
        parts = self.parts(host, offered, case)

        def made(seed: int = 0) -> Algorithm:
            algorithm: Algorithm = parts.make("algorithm", self.services(seed, tmp_path))
            return algorithm

        return made

    def services(self, seed: int, folder: Path) -> Services:
        """What it is handed."""
        tokenizer = self.tokenizer()
        engine = FakeEngine(tokenizer.size)
        return Services(
            engine=engine,
            tokenizer=tokenizer,
            corpora=self.corpora(),
            seed=seed,
            folder=folder,
            cache=folder / "cache",
            report=lambda event, values: None,
            stopping=lambda: None,
        )

    def test_its_batches_are_well_formed_and_of_the_promised_size(self, make: Any, config: Any) -> None:
        """On the CPU, labels and weights made, the filler outside everything."""
        vocabulary, size = self.tokenizer().size, self.size(config)
        for batches in train(make()):
            assert batches
            for batch in batches:
                check_batch(batch, vocabulary)
            if size is not None:
                assert [len(batch.token_ids) for batch in batches] == [size[1]] * size[0]

    def test_it_ends_after_as_many_steps_as_it_says(self, make: Any) -> None:
        """And `steps` is known before the first."""
        algorithm = make()
        assert algorithm.steps > 0
        assert len(list(train(algorithm))) == algorithm.steps

    def test_the_same_seed_gives_the_same_batches(self, make: Any) -> None:
        """Bit for bit."""
        assert same_batches(list(train(make(3))), list(train(make(3))))

    def test_from_the_state_after_any_step_the_same_batches_follow(self, make: Any) -> None:
        """The state is saved without pickled objects."""
        whole = list(train(make()))
        for stop in range(len(whole) + 1):
            first, resumed = make(), make()
            begun = list(train(first, upto=stop))
            resumed.load_state_dict(saved_and_loaded(first.state_dict()))
            rest = list(train(resumed, done=stop))
            assert same_batches(begun + rest, whole), f"stopped after {stop}"

    def test_batches_fetched_ahead_and_not_trained_on_come_again(self, make: Any) -> None:
        """The state counts steps that the engine reported, not batches that were handed out."""
        whole, ahead, resumed = list(train(make())), make(), make()
        stop = len(whole) // 2
        handed_out = [batches for _, batches in zip(whole, ahead.batches(), strict=True)]
        for step, batches in enumerate(handed_out[:stop], 1):
            ahead.after_step(step_result(step, batches))
        resumed.load_state_dict(saved_and_loaded(ahead.state_dict()))
        assert same_batches(list(train(resumed, done=stop)), whole[stop:])

    def test_what_it_finds_is_plain_data(self, make: Any) -> None:
        """Numbers after a step, JSON at the end."""
        algorithm = make()
        for step, batches in enumerate(algorithm.batches(), 1):
            metrics = algorithm.after_step(step_result(step, batches))
            assert all(isinstance(value, int | float) for value in metrics.values())
        found = dict(algorithm.finish())
        assert json.loads(json.dumps(found)) == found

    def test_what_it_finds_on_held_out_data_bears_the_names_that_are_looked_for(self, make: Any) -> None:
        """`best.metric` and whoever compares runs ask for `held_out.loss`; no metric takes a name of the engine's."""
        algorithm = make()
        results = (step_result(step, batches) for step, batches in enumerate(algorithm.batches(), 1))
        found = [algorithm.after_step(result) for result in results]
        for metrics in found:
            evaluated = {name for name in metrics if name.startswith("held_out.")}
            assert not evaluated or "held_out.loss" in evaluated, sorted(evaluated)
            assert not [name for name in metrics if name == "loss" or name.startswith("loss.")]
        held_out = algorithm.finish().get("held_out", {})
        if held_out:
            assert found[-1]["held_out.loss"] == held_out["loss"], "the last step ends with an evaluation"


def train(algorithm: Algorithm, *, done: int = 0, upto: int | None = None) -> Iterator[Sequence[PackedBatch]]:
    """Take the algorithm's steps as a run would.

    :param done: steps that were taken before its state was loaded.
    :param upto: steps after which to stop; None takes all.
    """
    if upto == done:
        return
    for step, batches in enumerate(algorithm.batches(), done + 1):
        yield batches
        algorithm.after_step(step_result(step, batches))
        if step == upto:
            return


def saved_and_loaded(state: Mapping[str, Any]) -> Any:
    """A state through a file that may hold plain data and tensors only."""
    file = io.BytesIO()
    torch.save(dict(state), file)
    file.seek(0)
    return torch.load(file, weights_only=True)
