"""AdamW against torch.optim.AdamW and a reference of its own, both in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from xtuner_core_kernels.adamw import cpu, reference

from xtuner_core.builtin.adamw.config import AdamWConfig
from xtuner_core.builtin.adamw.optimizer import AdamW, build
from xtuner_core.contracts.operator import Implementation, OperatorTable
from xtuner_core.contracts.optimizer import OptimizedParameter
from xtuner_core.errors import DataError

CONFIG = AdamWConfig(learning_rate=0.01, beta1=0.8, beta2=0.95, eps=1e-8, weight_decay=0.1)
BOTH = pytest.mark.parametrize("implementation", [reference.IMPLEMENTATION, cpu.IMPLEMENTATION], ids=lambda i: i.name)


def tensors(dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = [(4, 3), (3,), (2, 3, 4), (5, 2)]
    return [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes]


def parameters(values: Sequence[Tensor]) -> list[OptimizedParameter]:
    roles = ["mlp.up", "norm", "moe.experts", "embed"]
    return [
        OptimizedParameter(name=f"p{i}", role=role, layer=0, tensor=value)
        for i, (role, value) in enumerate(zip(roles, values, strict=True))
    ]


def bound(optimizer: AdamW, implementation: Implementation = reference.IMPLEMENTATION) -> AdamW:
    uses = optimizer.uses(device="cpu", dtype=torch.float32)
    assert all(implementation.supports(use) is None for use in uses.values())
    table = OperatorTable(dict.fromkeys(uses.values(), implementation))
    optimizer.bind(table, device="cpu", dtype=torch.float32)
    return optimizer


def grads(step: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return tensors(dtype, seed=100 + step)


@BOTH
def test_fifty_steps_equal_torch_with_decay_on_matrices_only(implementation: Implementation):
    ours, theirs = tensors(), tensors()
    optimizer = bound(build(CONFIG, parameters(ours), state_dtype=torch.float64), implementation)
    decayed = [theirs[0], theirs[2], theirs[3]]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": [theirs[1]], "weight_decay": 0.0}]
    other = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95), eps=1e-8)
    for step in range(1, 51):
        rate = 0.01 / step
        optimizer.step(grads(step), learning_rate=rate, grad_scale=0.5)
        for group in other.param_groups:
            group["lr"] = rate
        for tensor, grad in zip(theirs, grads(step), strict=True):
            tensor.grad = grad * 0.5
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@BOTH
def test_fifty_steps_equal_the_published_formula(implementation: Implementation):
    ours, values = tensors(), [t.flatten().tolist() for t in tensors()]
    optimizer = bound(build(CONFIG, parameters(ours), state_dtype=torch.float64), implementation)
    moments = [[(0.0, 0.0)] * len(v) for v in values]
    for step in range(1, 51):
        optimizer.step(grads(step), learning_rate=0.01, grad_scale=1.0)
        for p, grad in enumerate(grads(step)):
            decay = 0.0 if grad.dim() < 2 else 0.1
            for i, g in enumerate(grad.flatten().tolist()):
                m, v = moments[p][i]
                m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
                moments[p][i] = m, v
                update = (m / (1 - 0.8**step)) / ((v / (1 - 0.95**step)) ** 0.5 + 1e-8)
                values[p][i] -= 0.01 * (update + decay * values[p][i])
    for a, b in zip(ours, values, strict=True):
        torch.testing.assert_close(a.flatten(), torch.tensor(b, dtype=torch.float64), rtol=0, atol=1e-12)


def test_no_decay_reaches_vectors_and_norms_and_a_rule_sets_it_for_any():
    values = tensors()
    plain = [replace(each, role="norm") if i == 2 else each for i, each in enumerate(parameters(values))]
    given = [*plain[:3], replace(plain[3], weight_decay=0.2)]
    before = [value.clone() for value in values]
    optimizer = bound(build(AdamWConfig(weight_decay=0.5), given, state_dtype=torch.float64))
    optimizer.step([torch.zeros_like(value) for value in values], learning_rate=0.1, grad_scale=1.0)
    for value, old, factor in zip(values, before, (0.95, 1, 1, 0.98), strict=True):
        torch.testing.assert_close(value, old * factor, rtol=1e-15, atol=0)


def test_a_learning_rate_factor_is_that_of_its_parameter_and_told_by_group():
    values, others = tensors(), tensors()
    given = [
        replace(each, learning_rate_factor=0.25, group="slow") if i else each
        for i, each in enumerate(parameters(values))
    ]
    mixed = bound(build(CONFIG, given, state_dtype=torch.float64))
    slow = bound(build(CONFIG, parameters(others), state_dtype=torch.float64))
    mixed.step(grads(1), learning_rate=0.04, grad_scale=1.0)
    slow.step(grads(1), learning_rate=0.01, grad_scale=1.0)
    assert [torch.equal(a, b) for a, b in zip(values, others, strict=True)] == [False, True, True, True]
    assert mixed.rates == {"slow": 0.25}
    assert slow.rates == {}


def test_states_are_kept_in_the_dtype_that_is_asked_and_the_operator_is_told():
    optimizer = build(CONFIG, parameters(tensors(torch.float32)), state_dtype=torch.bfloat16)
    moments = optimizer.state_dict()["parameters"]["p0"]
    assert {moment.dtype for moment in moments.values()} == {torch.bfloat16}
    (use,) = optimizer.uses(device="cpu", dtype=torch.bfloat16).values()
    assert (use.dtype, use.option("state_dtype")) == (torch.float32, "torch.bfloat16")
    assert cpu.IMPLEMENTATION.supports(use) is not None


def test_parameters_of_two_dtypes_are_two_uses_and_both_updated():
    values = tensors(torch.float32)
    values[0] = values[0].bfloat16()
    before = [value.clone() for value in values]
    optimizer = bound(build(CONFIG, parameters(values), state_dtype=torch.float32))
    assert {use.dtype for use in optimizer.uses(device="cpu", dtype=torch.float32).values()} == {
        torch.float32,
        torch.bfloat16,
    }
    optimizer.step(grads(1, torch.float32), learning_rate=0.1, grad_scale=1.0)
    assert not any(torch.equal(a, b) for a, b in zip(values, before, strict=True))


@BOTH
def test_a_saved_state_goes_on_bit_for_bit(implementation: Implementation):
    straight, resumed = tensors(torch.float32), tensors(torch.float32)
    one = bound(build(CONFIG, parameters(straight), state_dtype=torch.float32), implementation)
    two = bound(build(CONFIG, parameters(resumed), state_dtype=torch.float32), implementation)
    for step in range(1, 4):
        one.step(grads(step, torch.float32), learning_rate=0.01, grad_scale=1.0)
        two.step(grads(step, torch.float32), learning_rate=0.01, grad_scale=1.0)
    fresh = bound(build(CONFIG, parameters(resumed), state_dtype=torch.float32), implementation)
    fresh.load_state_dict(two.state_dict())
    for step in range(4, 7):
        one.step(grads(step, torch.float32), learning_rate=0.01, grad_scale=1.0)
        fresh.step(grads(step, torch.float32), learning_rate=0.01, grad_scale=1.0)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_the_state_of_another_model_is_refused_and_the_parameter_named():
    saved = build(CONFIG, parameters(tensors()), state_dtype=torch.float32).state_dict()
    del saved["parameters"]["p2"]
    optimizer = build(CONFIG, parameters(tensors()), state_dtype=torch.float32)
    with pytest.raises(DataError, match="differs at p2"):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("wrong", [{"learning_rate": -1.0}, {"beta2": 1.0}, {"weight_decay": -0.1}])
def test_values_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="must"):
        AdamWConfig(**wrong)
