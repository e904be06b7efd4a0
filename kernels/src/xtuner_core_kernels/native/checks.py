"""What the tests of native implementations share: their bits, twice and with one and two threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from xtuner_core_kernels.testing import Computation, results_and_gradients


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch computes with so many threads."""
    found = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(found)


def bits_differ(compute: Computation, inputs: Sequence[Tensor]) -> list[int]:
    """Which results and gradients differ between two calls, or between one thread and two; none should."""
    given = []
    for count in (1, 2, 2):
        with threads(count):
            given.append(results_and_gradients(compute, inputs, torch.float32))
    first, *others = given
    return [index for other in others for index, (a, b) in enumerate(zip(first, other, strict=True)) if _differ(a, b)]


def _differ(first: Tensor, second: Tensor) -> bool:
    """Whether any bit differs; one NaN is like another."""
    return not torch.equal(first.nan_to_num(nan=1234.5), second.nan_to_num(nan=1234.5))
