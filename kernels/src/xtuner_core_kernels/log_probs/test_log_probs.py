"""Log-probabilities against cross entropy over full logits and against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical
from torch.nn import functional

from xtuner_core_kernels.log_probs import cpu, native, reference
from xtuner_core_kernels.native.checks import bits_differ
from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.testing import random, relative_error, worst_error

VOCABULARY = 50
TARGETS_T = torch.randint(-10, VOCABULARY, (37,), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("chunk", [1, 10, 4096])
def test_reference_equals_cross_entropy_and_entropy_over_full_logits(chunk: int) -> None:
    hidden_TD, head_VD = random(37, 12), random(VOCABULARY, 12, seed=1)
    logits_TV = hidden_TD @ head_VD.T
    log_probs_T, entropy_T = reference.log_probs(hidden_TD, head_VD, TARGETS_T, chunk, entropy=True)
    targets_T = TARGETS_T.where(TARGETS_T >= 0, -100)
    assert relative_error(log_probs_T, -functional.cross_entropy(logits_TV, targets_T, reduction="none")) < 1e-14
    assert entropy_T is not None
    expected = Categorical(logits=logits_TV).entropy().masked_fill(TARGETS_T < 0, 0)
    assert relative_error(entropy_T, expected) < 1e-14


@pytest.mark.parametrize("implementation", [reference.IMPLEMENTATION, cpu.IMPLEMENTATION], ids=lambda i: i.name)
@pytest.mark.parametrize("tokens", [0, 1, 37])
@pytest.mark.parametrize("chunk", [1, 10, 4096])
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("keep_bytes", [0, 2**20])
def test_agrees_with_float64(
    implementation: Implementation, tokens: int, chunk: int, entropy: bool, keep_bytes: int
) -> None:
    inputs = [random(tokens, 12), random(VOCABULARY, 12, seed=1)]

    def use(call, parts):  # type: ignore[no-untyped-def]
        return call(*parts, TARGETS_T[:tokens], chunk, entropy, keep_bytes)

    assert worst_error(implementation, reference.IMPLEMENTATION, inputs, use) < implementation.tolerance


@pytest.mark.parametrize("entropy", [False, True])
def test_cpu_gradient_is_the_derivative(entropy: bool) -> None:
    inputs = (random(4, 3).requires_grad_(), random(6, 3, seed=1).requires_grad_())
    targets_T = torch.tensor([0, -100, 5, 2])

    def use(hidden_TD: torch.Tensor, head_VD: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = cpu.log_probs(hidden_TD, head_VD, targets_T, chunk=3, entropy=entropy)
        return tuple(part for part in results if part is not None)

    assert torch.autograd.gradcheck(use, inputs)


@pytest.mark.parametrize("implementation", [reference.IMPLEMENTATION, cpu.IMPLEMENTATION], ids=lambda i: i.name)
def test_probabilities_too_small_for_float32_keep_their_logarithm(implementation: Implementation) -> None:
    hidden_TD = torch.tensor([[300.0]])
    head_VD, targets_T = torch.tensor([[1.0], [-1.0]]), torch.tensor([1])
    log_probs_T, entropy_T = implementation.call(hidden_TD, head_VD, targets_T, entropy=True)
    assert log_probs_T.item() == -600.0
    assert entropy_T.item() == 0.0


@pytest.mark.parametrize("implementation", [reference.IMPLEMENTATION, cpu.IMPLEMENTATION], ids=lambda i: i.name)
def test_only_one_input_may_need_a_gradient(implementation: Implementation) -> None:
    hidden_TD, head_VD = random(37, 12).requires_grad_(), random(VOCABULARY, 12, seed=1)
    log_probs_T, entropy_T = implementation.call(hidden_TD, head_VD, TARGETS_T)
    log_probs_T.sum().backward()
    assert entropy_T is None
    assert torch.equal(hidden_TD.grad.abs().sum(1) > 0, TARGETS_T >= 0)


def test_cpu_refuses_other_devices() -> None:
    assert "not on cuda" in str(cpu.IMPLEMENTATION.supports(Use.of("log_probs", "cuda", torch.float32)))


@pytest.mark.parametrize("sizes", [(0, 12, 50), (1, 1, 1), (37, 12, 50), (300, 270, 33), (200, 33, 530)], ids=str)
@pytest.mark.parametrize("keep_bytes", [0, 2**30])
def test_native_agrees_with_float64(
    sizes: tuple[int, int, int], keep_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, dim, vocab = sizes
    monkeypatch.setattr(native, "PIECE_BYTES", 4 * 96 * 60)  # pieces of 96 tokens
    inputs = [random(tokens, dim), random(vocab, dim, seed=1) * 0.3]
    targets_T = torch.randint(-vocab // 4 - 1, vocab, (tokens,), generator=torch.Generator().manual_seed(4))

    def use(call, parts):  # type: ignore[no-untyped-def]
        return call(*parts, targets_T, keep_bytes=keep_bytes)

    error = worst_error(native.IMPLEMENTATION, reference.IMPLEMENTATION, inputs, use)
    assert error < native.IMPLEMENTATION.tolerance


def test_native_gives_the_same_bits_with_any_threads() -> None:
    targets_T = torch.randint(-10, 530, (300,), generator=torch.Generator().manual_seed(4))
    inputs = [random(300, 33), random(530, 33, seed=1)]
    assert bits_differ(lambda *parts: native.log_probs(*parts, targets_T)[0], inputs) == []


def test_native_keeps_small_probabilities_and_hands_on_what_is_not_finite() -> None:
    hidden_TD, head_VD = torch.tensor([[300.0], [float("nan")], [1.0]]), torch.tensor([[1.0], [-1.0]])
    log_probs_T, _ = native.log_probs(hidden_TD, head_VD, torch.tensor([1, 0, -100]))
    assert relative_error(log_probs_T[0], torch.tensor(-600.0)) < 1e-6
    assert log_probs_T[1].isnan()
    assert log_probs_T[2] == 0


def test_native_refuses_entropies() -> None:
    assert "entropies" in str(
        native.IMPLEMENTATION.supports(Use.of("log_probs", "cpu", torch.float32, options={"entropy": True}))
    )
