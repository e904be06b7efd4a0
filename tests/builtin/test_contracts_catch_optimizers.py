"""Each check of the suites of optimizers, schedules and precisions fails on a component that breaks what it is for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xtuner_core.contracts.precision import PrecisionPolicy
from xtuner_core.errors import ConfigError
from xtuner_core.nn.roles import set_role
from xtuner_core.testing import OptimizerContract, PrecisionContract, ScheduleContract, tiny_host

# ── optimizers ─────────────────────────────────────────────────────────────────────────────────────────────────────


class WrongOptimizer:
    """Gradient descent with momentum and decoupled decay, with one thing wrong."""

    learning_rate = 0.1

    def __init__(self, fault: str, parameters: Any, state_dtype: torch.dtype) -> None:
        self.fault, self.parameters = fault, parameters
        self.rates = {p.group: p.learning_rate_factor for p in parameters if p.group and fault != "untold"}
        dtype = torch.float64 if fault == "state_dtype" else state_dtype
        self.momenta = [torch.zeros_like(p.tensor, dtype=dtype) for p in parameters]

    def step(self, grads: list[Tensor], *, learning_rate: float, grad_scale: float) -> None:
        for parameter, momentum, grad in zip(self.parameters, self.momenta, grads, strict=True):
            tensor, fault = parameter.tensor, self.fault
            if fault == "forgets" and parameter.role == "norm":
                continue
            rate = max(learning_rate, 1e-3 if fault == "floor" else 0.0)
            rate *= 1.0 if fault == "factor" else parameter.learning_rate_factor
            wish = None if fault == "decay" else parameter.weight_decay
            decay = (0.1 if tensor.dim() > 1 or fault == "vectors" else 0.0) if wish is None else wish
            momentum.mul_(0.9).add_(grad.to(momentum.dtype) if fault != "picky" else grad.view(torch.int32) * 0)
            if fault != "scale":
                momentum.add_(grad.to(momentum.dtype), alpha=grad_scale - 1)
            noise = torch.rand(()) if fault == "random" else 1.0
            move = momentum.to(tensor.dtype) * (-1 if fault == "uphill" else noise)
            tensor.mul_(1 - rate * decay).sub_(move, alpha=rate)

    def state_dict(self) -> dict[str, Any]:
        pairs = zip(self.parameters, self.momenta, strict=True)
        return {"step": 0, "parameters": {p.name: {"momentum": m} for p, m in pairs}}

    def load_state_dict(self, state: Any) -> None:
        if self.fault == "no_state":
            return
        own, saved = self.state_dict()["parameters"], state["parameters"]
        if self.fault != "credulous":
            for name, kept in own.items():
                if name not in saved or saved[name]["momentum"].shape != kept["momentum"].shape:
                    raise ConfigError("the state of another model")
        for name in own.keys() & saved.keys():
            if own[name]["momentum"].shape == saved[name]["momentum"].shape:
                own[name]["momentum"].copy_(saved[name]["momentum"])


class WrongOptimizers(OptimizerContract):
    plugin = "wrong"


OPTIMIZERS = {
    "forgets": "test_steps_are_finite_and_move_every_parameter",
    "uphill": "test_it_brings_parameters_nearer_to_where_their_gradients_point",
    "random": "test_the_same_gradients_give_the_same_bits",
    "no_state": "test_a_saved_state_goes_on_with_the_same_bits",
    "state_dtype": "test_states_have_the_dtype_that_is_asked",
    "credulous": "test_the_state_of_other_parameters_is_refused_and_nothing_changes",
    "scale": "test_a_gradient_is_scaled_before_all_else",
    "floor": "test_a_learning_rate_of_zero_changes_nothing",
    "factor": "test_the_rules_factor_multiplies_the_learning_rate_and_is_told",
    "untold": "test_the_rules_factor_multiplies_the_learning_rate_and_is_told",
    "decay": "test_the_rules_decay_replaces_its_own",
    "vectors": "test_vectors_and_norms_have_no_decay_unless_a_rule_says_so",
    "picky": "test_gradients_and_parameters_may_have_other_dtypes",
}


@pytest.mark.parametrize("fault", OPTIMIZERS)
def test_an_optimizer_with_a_fault_fails_the_check_that_is_for_it(fault):
    def make(wrong: str) -> Callable[..., WrongOptimizer]:
        return lambda parameters, state_dtype=torch.float32: WrongOptimizer(wrong, parameters, state_dtype)

    test = getattr(WrongOptimizers(), OPTIMIZERS[fault])
    test(make(""))
    with pytest.raises((AssertionError, pytest.fail.Exception, RuntimeError)):
        test(make(fault))


# ── schedules ──────────────────────────────────────────────────────────────────────────────────────────────────────


class WrongSchedule:
    """Linear down from 1, with one thing wrong."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.asked = itertools.count(1)

    def __call__(self, step: int, steps: int) -> float:
        if self.fault == "late" and step > steps // 2:
            raise ConfigError("the run is too long")
        if self.fault == "never":
            raise ConfigError("no run is right")
        if self.fault == "from_zero":
            return (step - 1) / steps
        found = next(self.asked) if self.fault == "counts" else step
        return 1.1 - found / (steps + 1) if self.fault == "high" else max(0.0, 1 - found / (steps + 1))


SCHEDULES = {
    "late": "test_it_fits_some_run_and_refuses_the_others_at_their_first_step",
    "never": "test_it_fits_some_run_and_refuses_the_others_at_their_first_step",
    "high": "test_it_lies_between_0_and_1_and_reaches_1_at_most",
    "from_zero": "test_the_first_step_learns",
    "counts": "test_a_resumed_run_gets_the_same_factors",
}


@pytest.mark.parametrize("fault", SCHEDULES)
def test_a_schedule_with_a_fault_fails_the_check_that_is_for_it(fault):
    test = getattr(ScheduleContract(), SCHEDULES[fault])
    test(lambda: WrongSchedule(""))
    with pytest.raises((AssertionError, ConfigError)):
        test(lambda: WrongSchedule(fault))


# ── precisions ─────────────────────────────────────────────────────────────────────────────────────────────────────

BF16 = PrecisionPolicy(parameter=torch.float32, compute=torch.bfloat16, reduction=torch.float32, state=torch.float32)


class WrongPrecision:
    """bf16, with one thing wrong."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        state: Any = torch.int8 if fault == "integers" else torch.float32
        self.policy = replace(BF16, state=state)

    def prepare(self, model: Any) -> nn.Module:
        if self.fault == "role":
            set_role(model.head, "embed")
        if self.fault == "own":
            model.half()
        if self.fault == "scaled":
            model.norm.register_forward_hook(lambda module, inputs, output: output * 3)
        if self.fault == "swaps":
            model.weight_map = _swapped(model.weight_map)
        return model


def _swapped(weight_map: Callable[[], Any]) -> Callable[[], Any]:
    """Two entries have changed places when it is first asked, so that what is read is not what was written."""
    calls = itertools.count()

    def wrong() -> Any:
        found = weight_map()
        if next(calls):
            return found
        entries = list(found.entries)
        names = [entry.hf_name for entry in entries]
        (one, other) = (names.index(f"layers.0.{name}_norm.weight") for name in ("attention", "feed_forward"))
        entries[one], entries[other] = (
            replace(entries[one], parameter=entries[other].parameter),
            replace(entries[other], parameter=entries[one].parameter),
        )
        return replace(found, entries=tuple(entries))

    return wrong


PRECISIONS = {
    "integers": "test_its_policy_is_four_floating_dtypes",
    "role": "test_prepare_keeps_roles_and_names_on_the_meta_device",
    "own": "test_each_part_of_a_run_has_the_policys_dtype",
    "swaps": "test_weights_go_out_and_come_back_as_they_were",
    "scaled": "test_the_loss_is_near_that_in_float64",
}


@pytest.mark.parametrize("fault", PRECISIONS)
def test_a_precision_with_a_fault_fails_the_check_that_is_for_it(fault, tmp_path):
    suite, host = PrecisionContract(), tiny_host()
    test = getattr(suite, PRECISIONS[fault])
    for wrong in ("", fault):
        case = {"host": host, "precision": WrongPrecision(wrong), "tmp_path": tmp_path / (wrong or "right")}
        names = test.__code__.co_varnames[1 : test.__code__.co_argcount]
        arguments = {name: case[name] for name in names}
        if not wrong:
            test(**arguments)
            continue
        with pytest.raises((AssertionError, RuntimeError)):
            test(**arguments)
