"""The suite of operator implementations, over one of the core's and over one that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from xtuner_core_kernels.swiglu.reference import IMPLEMENTATION as REFERENCE
from xtuner_core_kernels.testing import random

from xtuner_core.api import Provider
from xtuner_core.contracts.operator import Implementation, Use
from xtuner_core.testing import OperatorCase, OperatorContract, fake_plugin

PLAIN = Use.of("swiglu", "cpu", torch.float32)
CASES = tuple(
    OperatorCase(use=PLAIN, inputs=[random(*shape)], call=lambda call, parts: call(*parts))
    for shape in ((1, 2), (7, 48), (3, 4, 6))
)


class TestSwiGLU(OperatorContract):
    plugin, offer = "kernels", "swiglu.cpu"

    def cases(self) -> Sequence[OperatorCase]:
        return CASES

    def refused(self) -> Sequence[Use]:
        return [replace(PLAIN, dtype=torch.bfloat16), Use.of("swiglu", "cpu", torch.float32, options={"limit": 7.0})]


def swapped(gate_up: torch.Tensor) -> torch.Tensor:
    """Takes the halves the other way round."""
    return REFERENCE.call(gate_up.roll(gate_up.shape[-1] // 2, -1))


def eager(gate_up: torch.Tensor) -> torch.Tensor:
    """Leaves its input changed."""
    result = REFERENCE.call(gate_up)
    with torch.no_grad():
        gate_up.zero_()
    return result


def made(call: Any, **values: Any) -> Implementation:
    given = {"supports": lambda use: None, "tolerance": 1e-6, **values}
    return Implementation(operator="swiglu", name="wrong", call=call, **given)


WRONG = made(swapped)
OFFER: Provider[Any] = Provider(slot="operator", name="swiglu.wrong", factory=f"{__name__}:WRONG", summary="wrong")


class Suite(OperatorContract):
    plugin = "wrong"
    objects: ClassVar[dict[str, object]] = {"wrong": fake_plugin("wrong", OFFER)}

    def cases(self) -> Sequence[OperatorCase]:
        return CASES


def test_wrong_results_are_caught():
    with pytest.raises(AssertionError):
        Suite().test_results_and_gradients_are_those_of_the_reference(made(swapped), REFERENCE)


def test_one_that_changes_its_inputs_is_caught():
    with pytest.raises(AssertionError):
        Suite().test_inputs_stay_as_they_were(made(eager))


def test_one_that_claims_to_serve_every_device_is_caught():
    with pytest.raises(AssertionError):
        Suite().test_it_refuses_the_rest_in_a_sentence(made(swapped))


def test_one_whose_bits_change_is_caught():
    draw = torch.Generator().manual_seed(0)

    def noisy(gate_up: torch.Tensor) -> torch.Tensor:
        return REFERENCE.call(gate_up) + 1e-3 * torch.rand(1, generator=draw)

    with pytest.raises(AssertionError):
        Suite().test_the_same_inputs_give_the_same_bits(made(noisy))
