"""The contract suite of optimizers, over parameters of every kind that a model has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from xtuner_core.contracts.operator import OperatorUser
from xtuner_core.contracts.optimizer import OptimizedParameter, Optimizer
from xtuner_core.contracts.weights import Span
from xtuner_core.errors import XTunerCoreError
from xtuner_core.host import Host
from xtuner_core.registry import Offer
from xtuner_core.testing.build import bind
from xtuner_core.testing.suite import OfferSuite

Make = Callable[..., Optimizer]
"""From parameters to a bound optimizer of the case; `state_dtype` is float32 unless given."""
RATE = 0.01
KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "embed": ("embed", (11, 4)),
    "qkv": ("attn.qkv", (8, 4)),
    "bias": ("attn.qkv", (8,)),
    "norm": ("norm", (4,)),
    "gate_up": ("moe.experts", (2, 6, 4)),
    "router": ("moe.router", (2, 4)),
    "scalar": ("mlp", ()),
    "head": ("head", (11, 4)),
}
"""Name to role and shape."""
MATRICES = {"qkv": ((0, 4), (4, 6), (6, 8)), "gate_up": ((0, 3), (3, 6))}
"""Rows of the matrices that lie fused in a parameter."""


def random_parameters(dtype: torch.dtype = torch.float32, **changes: Any) -> list[OptimizedParameter]:
    """Parameters of every kind, always with the same values.

    :param changes: what the run's rules say, for all of them: `weight_decay=0.0`.
    """
    return [
        replace(
            OptimizedParameter(
                name=name,
                role=role,
                layer=0,
                tensor=tensor.to(dtype),
                matrices=tuple((Span(*rows), Span(0, 4)) for rows in MATRICES.get(name, ())),
            ),
            **changes,
        )
        for (name, (role, _)), tensor in zip(KINDS.items(), _random(0), strict=True)
    ]


def random_gradients(step: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Gradients of these parameters at a step."""
    return [tensor.to(dtype) for tensor in _random(step)]


def _random(seed: int) -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=draw) for _, shape in KINDS.values())


class OptimizerContract(OfferSuite):
    """What holds for every optimizer: its arithmetic is its own, what the engine relies on is tested."""

    slot: ClassVar[str] = "optimizer"

    @pytest.fixture
    def make(self, host: Host, offered: Offer, case: int) -> Make:
        """Builds the optimizer of a case."""
        parts = self.parts(host, offered, case)

        def make(parameters: Sequence[OptimizedParameter], state_dtype: torch.dtype = torch.float32) -> Optimizer:
            made: Optimizer = parts.make("optimizer", parameters, state_dtype=state_dtype)
            assert isinstance(made, OperatorUser)
            bind(host, [made], torch.float32)
            return made

        return make

    def test_steps_are_finite_and_move_every_parameter(self, make: Make) -> None:
        """Over ten steps."""
        parameters, before = random_parameters(), tensors_of(random_parameters())
        train(make(parameters), range(1, 11))
        for parameter, old in zip(parameters, before, strict=True):
            assert parameter.tensor.isfinite().all(), parameter.name
            assert not torch.equal(parameter.tensor, old), parameter.name

    def test_it_brings_parameters_nearer_to_where_their_gradients_point(self, make: Make) -> None:
        """The gradient of a parabola around 0, without decay."""
        parameters = random_parameters(weight_decay=0.0)
        optimizer = make(parameters)
        distance = _norm(parameters)
        for _ in range(20):
            grads = [parameter.tensor.clone() for parameter in parameters]
            optimizer.step(grads, learning_rate=RATE, grad_scale=1.0)
        assert _norm(parameters) < distance

    def test_the_same_gradients_give_the_same_bits(self, make: Make) -> None:
        """In two optimizers side by side."""
        one, other = random_parameters(), random_parameters()
        for parameters in (one, other):
            train(make(parameters), range(1, 4))
        assert same(one, other)

    def test_a_saved_state_goes_on_with_the_same_bits(self, make: Make) -> None:
        """In a fresh optimizer over the parameters as they were saved."""
        straight, resumed = random_parameters(), random_parameters()
        optimizer, before = make(straight), make(resumed)
        train(optimizer, range(1, 7))
        train(before, range(1, 4))
        fresh = make(resumed)
        fresh.load_state_dict(deepcopy(before.state_dict()))
        train(fresh, range(4, 7))
        assert same(straight, resumed)

    def test_states_have_the_dtype_that_is_asked(self, make: Make) -> None:
        """Those of the size of a parameter; each stands under the parameter's name."""
        parameters = random_parameters()
        for dtype in (torch.float32, torch.bfloat16):
            optimizer = make(parameters, state_dtype=dtype)
            states = optimizer.state_dict()["parameters"]
            assert states.keys() <= {parameter.name for parameter in parameters}
            for parameter in parameters:
                kept = [
                    each for each in states.get(parameter.name, {}).values() if each.dim() and each.is_floating_point()
                ]
                assert {each.dtype for each in kept if each.shape == parameter.tensor.shape} <= {dtype}
            train(optimizer, [1])
            assert all(parameter.tensor.isfinite().all() for parameter in parameters)

    def test_the_state_of_other_parameters_is_refused_and_nothing_changes(self, make: Make) -> None:
        """One is missing, or has another shape."""
        optimizer = make(random_parameters())
        train(optimizer, range(1, 3))
        before = deepcopy(optimizer.state_dict())
        fewer = make(random_parameters()[1:])
        with pytest.raises(XTunerCoreError):
            optimizer.load_state_dict(fewer.state_dict())
        wider = [
            replace(each, tensor=each.tensor.repeat(*[2] * max(1, each.tensor.dim()))) for each in random_parameters()
        ]
        with pytest.raises(XTunerCoreError):
            optimizer.load_state_dict(make([replace(each, matrices=()) for each in wider]).state_dict())
        assert _equal_states(optimizer.state_dict(), before)

    def test_a_gradient_is_scaled_before_all_else(self, make: Make) -> None:
        """As clipping does; a factor of every step might cancel out, so only the second is scaled."""
        one, other = random_parameters(), random_parameters()
        scaled, plain = make(one), make(other)
        train(scaled, [1])
        train(plain, [1])
        scaled.step(random_gradients(2), learning_rate=RATE, grad_scale=0.25)
        plain.step([grad * 0.25 for grad in random_gradients(2)], learning_rate=RATE, grad_scale=1.0)
        close(one, other)

    def test_a_learning_rate_of_zero_changes_nothing(self, make: Make) -> None:
        """The step's, and that of the rules."""
        whole, ruled = random_parameters(), random_parameters(learning_rate_factor=0.0)
        make(whole).step(random_gradients(1), learning_rate=0.0, grad_scale=1.0)
        make(ruled).step(random_gradients(1), learning_rate=RATE, grad_scale=1.0)
        assert same(whole, random_parameters())
        assert same(ruled, random_parameters())

    def test_the_rules_factor_multiplies_the_learning_rate_and_is_told(self, make: Make) -> None:
        """Decay included; its group stands in `rates`."""
        one, other = random_parameters(), random_parameters(learning_rate_factor=0.5, group="slow")
        plain, ruled = make(one), make(other)
        train(plain, range(1, 4))
        train(ruled, range(1, 4), rate=2 * RATE)
        close(one, other)
        assert any("slow" in name for name in ruled.rates)
        assert not any("slow" in name for name in plain.rates)

    def test_the_rules_decay_replaces_its_own(self, make: Make) -> None:
        """Without a gradient nothing moves but by decay, which takes every parameter towards 0."""
        still, decayed = random_parameters(weight_decay=0.0), random_parameters(weight_decay=1.0)
        for parameters in (still, decayed):
            make(parameters).step([torch.zeros_like(t) for t in tensors_of(still)], learning_rate=RATE, grad_scale=1.0)
        assert same(still, random_parameters())
        for parameter, old in zip(decayed, tensors_of(still), strict=True):
            assert parameter.tensor.norm() < old.norm(), parameter.name

    def test_vectors_and_norms_have_no_decay_unless_a_rule_says_so(self, make: Make) -> None:
        """Whatever its configuration."""
        parameters = random_parameters()
        make(parameters).step([torch.zeros_like(t) for t in tensors_of(parameters)], learning_rate=RATE, grad_scale=1.0)
        for parameter, fresh in zip(parameters, random_parameters(), strict=True):
            if parameter.tensor.dim() < 2 or parameter.role == "norm":
                assert torch.equal(parameter.tensor, fresh.tensor), parameter.name

    def test_gradients_and_parameters_may_have_other_dtypes(self, make: Make) -> None:
        """What gradients are added up in is the precision's choice, and so is what is updated."""
        for parameter, grad in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)):
            parameters = random_parameters(parameter)
            make(parameters).step(random_gradients(1, grad), learning_rate=RATE, grad_scale=1.0)
            assert all(each.tensor.dtype == parameter and each.tensor.isfinite().all() for each in parameters)


def train(optimizer: Optimizer, steps: Sequence[int], rate: float = RATE) -> None:
    """Take steps with the gradients of their numbers."""
    for step in steps:
        optimizer.step(random_gradients(step), learning_rate=rate, grad_scale=1.0)


def tensors_of(parameters: Sequence[OptimizedParameter]) -> list[Tensor]:
    """What is updated."""
    return [parameter.tensor for parameter in parameters]


def same(one: Sequence[OptimizedParameter], other: Sequence[OptimizedParameter]) -> bool:
    """Whether all bits are equal."""
    return all(torch.equal(a, b) for a, b in zip(tensors_of(one), tensors_of(other), strict=True))


def close(one: Sequence[OptimizedParameter], other: Sequence[OptimizedParameter]) -> None:
    """Assert equality but for rounding."""
    torch.testing.assert_close(tensors_of(one), tensors_of(other), rtol=1e-5, atol=1e-6)


def _norm(parameters: Sequence[OptimizedParameter]) -> float:
    return sum(float(tensor.square().sum()) for tensor in tensors_of(parameters))


def _equal_states(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal_states(one[key], other[key]) for key in one)
    return bool(one == other)
