"""Each check of the other contract suites fails on a component that breaks what it is for. T tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import nn

from xtuner_core.api import LossProvider, ParallelismProvider, PluginInfo
from xtuner_core.builtin.cpu.device import CpuDevice
from xtuner_core.contracts.batch import Document, pack
from xtuner_core.errors import ContractError, XTunerCoreError
from xtuner_core.testing import (
    AlgorithmContract,
    DeviceContract,
    LossContract,
    ParallelismSmoke,
    PluginContract,
    fake_plugin,
    random_documents,
    tiny_host,
)
from xtuner_core.testing.algorithm import train
from xtuner_core.testing.batches import check_batch
from xtuner_core.testing.build import find_offer, meta_model
from xtuner_core.testing.loss import with_scores

HERE = __name__


# ── losses ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class WrongLoss:
    """Negative log-likelihood, with one thing wrong."""

    entropy = False
    fault = ""

    def denominator(self, batch: Any) -> Any:
        count = batch.weights.sum(dtype=torch.float64)
        return count.float() if self.fault == "dtype" else count

    def total(self, scores: Any, batch: Any) -> Any:
        nll_T = -scores.log_probs_T * batch.weights
        if self.fault == "mean":
            return nll_T.mean()
        if self.fault == "nan":
            return nll_T.sum() / batch.weights.sum() * batch.weights.sum()
        if self.fault == "filler":
            return nll_T.sum() - 0.1 * scores.log_probs_T[-1]
        if self.fault == "gradient":
            return nll_T.sum() + (scores.log_probs_T - scores.log_probs_T.detach()).sum()
        return 2 * nll_T.sum() if self.fault == "formula" else nll_T.sum()


class WrongLosses(LossContract):
    plugin, offer = "wrong", "wrong"

    def expected(self, config, scores, batch):
        return -(scores.log_probs_T * batch.weights.double()).sum() / batch.weights.double().sum()


LOSSES = {
    "formula": "test_it_equals_a_formula_of_the_tests_own",
    "mean": "test_packing_and_splitting_change_nothing",
    "filler": "test_filler_changes_nothing",
    "dtype": "test_the_denominator_is_a_float64_number_known_before_any_score",
    "nan": "test_weights_of_zero_give_zero_and_no_nan",
    "gradient": "test_its_gradient_is_that_of_finite_differences",
}


@pytest.mark.parametrize("fault", LOSSES)
def test_a_loss_with_a_fault_fails_the_check_that_is_for_it(fault):
    suite, loss, draw = WrongLosses(), WrongLoss(), torch.Generator().manual_seed(0)
    case = {"loss": loss, "config": None, "scored": [with_scores(d, draw) for d in random_documents(50)]}
    call(getattr(suite, LOSSES[fault]), case)
    loss.fault = fault
    with pytest.raises(AssertionError if fault != "gradient" else RuntimeError):
        call(getattr(suite, LOSSES[fault]), case)


# ── algorithms ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class WrongAlgorithm:
    """Three steps of one random document each, with one thing wrong."""

    fault: str = ""
    steps: int = 3
    _done: int = 0
    _made: Any = field(default_factory=itertools.count)

    def batches(self) -> Any:
        for step in range(self._done, self.steps - (self.fault == "early")):
            seed = next(self._made) + (torch.seed() if self.fault == "seed" else 0)
            draw = torch.Generator().manual_seed(seed if self.fault in ("seed", "ahead") else step)
            if self.fault == "ahead":
                self._done += 1
            yield [pack([Document.of(torch.randint(200, (9,), generator=draw))])]

    def after_step(self, result: Any) -> Any:
        self._done = self._done if self.fault == "ahead" else result.step
        if self.fault == "names":
            return {"held_out.bits_per_byte": 1.0}
        return {"reward": "low" if self.fault == "plain" else 1.0}

    def finish(self) -> Any:
        return {}

    def state_dict(self) -> Any:
        return {"done": self._done}

    def load_state_dict(self, state: Any) -> None:
        if self.fault != "state":
            self._done = state["done"]


class WrongAlgorithms(AlgorithmContract):
    plugin = "wrong"

    def size(self, config):
        return (1, config)


ALGORITHMS = {
    "size": "test_its_batches_are_well_formed_and_of_the_promised_size",
    "early": "test_it_ends_after_as_many_steps_as_it_says",
    "seed": "test_the_same_seed_gives_the_same_batches",
    "state": "test_from_the_state_after_any_step_the_same_batches_follow",
    "ahead": "test_batches_fetched_ahead_and_not_trained_on_come_again",
    "plain": "test_what_it_finds_is_plain_data",
    "names": "test_what_it_finds_on_held_out_data_bears_the_names_that_are_looked_for",
}


@pytest.mark.parametrize("fault", ALGORITHMS)
def test_an_algorithm_with_a_fault_fails_the_check_that_is_for_it(fault):
    test = getattr(WrongAlgorithms(), ALGORITHMS[fault])
    call(test, {"make": lambda seed=0: WrongAlgorithm(), "config": 9})
    with pytest.raises(AssertionError):
        call(test, {"make": lambda seed=0: WrongAlgorithm(fault), "config": 8})


@pytest.mark.parametrize(
    "change",
    [
        {"labels": torch.full((12,), 3)},
        {"weights": torch.ones(12)},
        {"cu_seqlens": torch.tensor([0, 9], dtype=torch.int32)},
        {"token_ids": torch.full((12,), 300)},
        {"lengths": (9, 2)},
        {"filler": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_malformed_batch_is_caught(change):
    batch = pack([Document.of(torch.arange(9))], capacity=12)
    check_batch(batch, 200)
    with pytest.raises(AssertionError):
        check_batch(replace(batch, **change), 200)


def test_taking_an_algorithms_steps_reports_each_of_them():
    algorithm = WrongAlgorithm()
    assert len(list(train(algorithm, upto=2))) == 2
    assert algorithm.state_dict() == {"done": 2}


# ── devices, strategies, plugins ───────────────────────────────────────────────────────────────────────────────────


class WrongDevice(CpuDevice):
    """The processor, with one thing wrong."""

    def __init__(self, fault: str = "") -> None:
        super().__init__(None)
        self.fault = fault

    def facts(self):
        facts = super().facts()
        return replace(facts, capabilities=facts.capabilities | {"dtype.fp3"}) if self.fault == "facts" else facts

    def memory(self):
        return replace(super().memory(), allocated=1 << 20) if self.fault == "memory" else super().memory()

    def seed(self, seed):
        if self.fault != "seed":
            super().seed(seed)

    def set_random_state(self, state):
        if self.fault != "state":
            super().set_random_state(state)


DEVICES = {
    "facts": "test_its_facts_are_well_formed",
    "memory": "test_memory_in_use_and_at_the_peak_shows",
    "seed": "test_a_seed_gives_the_same_draws_and_another_seed_others",
    "state": "test_a_restored_random_state_gives_the_same_draws",
}


@pytest.mark.parametrize("fault", DEVICES)
def test_a_device_with_a_fault_fails_the_check_that_is_for_it(fault):
    host, test = tiny_host(), getattr(DeviceContract(), DEVICES[fault])
    case = {"host": host, "offered": find_offer(host, "device", "cpu")}
    call(test, {**case, "device": WrongDevice()})
    with pytest.raises(AssertionError):
        call(test, {**case, "device": WrongDevice(fault)})


class Renames:
    """A strategy that wraps the norm in a module, as careless recomputation does."""

    def __init__(self, config: None) -> None:
        pass

    def apply(self, model: Any, context: Any) -> Any:
        model.norm = nn.Sequential(model.norm)
        return model


def test_a_strategy_that_renames_parameters_is_caught():
    provider = ParallelismProvider(name="renames", factory=f"{HERE}:Renames", summary="-")
    host = tiny_host(objects={"renames": fake_plugin("renames", provider)})
    suite = ParallelismSmoke
    applied = Renames(None).apply(meta_model(host, "tiny", {}), None)
    with pytest.raises(AssertionError):
        suite().test_parameters_keep_their_names_and_shapes(meta_model(host, "tiny", {}), applied)
    with pytest.raises(ContractError):
        suite().test_the_weight_map_still_covers_the_model(applied)


@dataclass(kw_only=True)
class Undocumented:
    """A configuration whose field says nothing."""

    strength: float = 1.0


class WrongPlugins(PluginContract):
    plugin = "wrong"


@pytest.mark.parametrize(
    ("test", "changes"),
    [
        ("test_the_offers_index_equals_the_records", {}),
        ("test_factories_are_there", {"factory": f"{HERE}:nowhere"}),
        ("test_every_configuration_field_has_a_docstring_and_a_default", {"config": Undocumented}),
        ("test_it_says_what_it_is_and_what_each_offer_is", {"summary": ""}),
        ("test_every_offer_and_preset_can_be_picked", {"requires": frozenset({"dtype.fp8"})}),
    ],
)
def test_a_plugin_with_a_fault_fails_the_check_that_is_for_it(test, changes):
    provider = LossProvider(**{"name": "wrong", "factory": f"{HERE}:WrongLoss", "summary": "-", **changes})
    info = PluginInfo(contract="1.0", summary="wrong")
    host = tiny_host(objects={"wrong": fake_plugin("wrong", provider, info=info)})
    case = {"host": host, "offers": host.registry.of_plugin("wrong")}
    with pytest.raises((AssertionError, XTunerCoreError)):
        call(getattr(WrongPlugins(), test), case)


def call(test: Callable[..., None], case: dict[str, Any]) -> None:
    """Call a test of a suite with those of the case's arguments that it takes."""
    names = test.__code__.co_varnames[1 : test.__code__.co_argcount]
    test(**{name: case[name] for name in names})
