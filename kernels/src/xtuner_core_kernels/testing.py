"""What the operators' tests share: one way to compare an implementation with the reference in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from xtuner_core_kernels.operator import Implementation

Computation: TypeAlias = Callable[..., Tensor | tuple[Tensor | None, ...]]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """``|actual - expected| / |expected|`` in Euclidean norms taken in float64; the plain norm where expected is 0."""
    difference = (actual.detach().double() - expected.detach().double()).norm()
    size = expected.detach().double().norm()
    return float(difference / size if size > 0 else difference)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, representable in float32 and bfloat16 alike, held in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).bfloat16().double()


def results_and_gradients(compute: Computation, inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """What ``compute`` returns for the inputs in that dtype, then the gradient of each input.

    The loss is a fixed random combination of all floating-point results. Some releases of PyTorch cut the graph at a
    result without elements; the gradients, which then have none either, are given all the same.
    """
    leaves = [part.to(dtype).detach().requires_grad_() for part in inputs]
    returned = compute(*leaves)
    results = [part for part in (returned if isinstance(returned, tuple) else (returned,)) if part is not None]
    results = [part for part in results if part.is_floating_point()]
    weights = [random(*part.shape, seed=100 + index).to(part.dtype) for index, part in enumerate(results)]
    assert all(part.requires_grad for part in results if part.numel())
    attached = [index for index, part in enumerate(results) if part.requires_grad]
    if attached:
        torch.autograd.backward([results[index] for index in attached], [weights[index] for index in attached])
    return [*results, *(_gradient(leaf, results) for leaf in leaves)]


def _gradient(leaf: Tensor, results: Sequence[Tensor]) -> Tensor:
    if leaf.grad is None:
        assert not any(part.numel() for part in results), "an input received no gradient"
        return torch.zeros_like(leaf)
    return leaf.grad


def worst_error(
    implementation: Implementation,
    reference: Implementation,
    inputs: Sequence[Tensor],
    use: Callable[[Callable[..., Any], Sequence[Tensor]], Any],
    dtype: torch.dtype = torch.float32,
) -> float:
    """The largest relative error of results and gradients, the reference being taken in float64.

    Args:
        implementation: what is tested.
        reference: the operator's reference.
        inputs: the differentiable inputs, in float64.
        use: calls an implementation's function on such inputs, the other arguments being its own.
        dtype: the dtype the tested implementation computes in.
    """
    actual = results_and_gradients(lambda *parts: use(implementation.call, parts), inputs, dtype)
    expected = results_and_gradients(lambda *parts: use(reference.call, parts), inputs, torch.float64)
    return max(relative_error(a, e) for a, e in zip(actual, expected, strict=True))
