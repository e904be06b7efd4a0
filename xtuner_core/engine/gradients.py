"""Gradients of one step: added up over micro-batches, their norm, in as few passes and copies as possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from xtuner_core.engine.ranks.layout import local


class GradientSum:
    """Sums of gradients in given dtypes.

    Where a parameter has the dtype of its sum, autograd's own `grad` is the sum and nothing is copied. Where
    it has not, each gradient is added to a buffer as soon as it is complete and given back, so that the
    gradients of a whole model never exist in both dtypes.

    :param parameters: each once.
    :param dtypes: of the sums, in the same order.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], dtypes: Sequence[torch.dtype]) -> None:
        self._parameters = tuple(parameters)
        self._dtypes = tuple(dtypes)
        self._buffers: list[Tensor | None] = [None] * len(self._parameters)
        for index, (parameter, dtype) in enumerate(zip(self._parameters, self._dtypes, strict=True)):
            if parameter.dtype != dtype:
                collect = self._collector(index, dtype)
                parameter.register_post_accumulate_grad_hook(collect)  # type: ignore[no-untyped-call]

    def _collector(self, index: int, dtype: torch.dtype) -> Callable[[Tensor], None]:
        def collect(parameter: Tensor) -> None:
            assert parameter.grad is not None
            held = self._buffers[index]
            self._buffers[index] = parameter.grad.to(dtype) if held is None else held.add_(parameter.grad)
            parameter.grad = None

        return collect

    def clear(self) -> None:
        """Forget every gradient."""
        self._buffers = [None] * len(self._parameters)
        for parameter in self._parameters:
            parameter.grad = None

    def sums(self) -> list[Tensor]:
        """Give the sums in the order of the parameters; zeros where no gradient came, as on any rank.

        Of a parameter that is divided among ranks it is this rank's part, a plain tensor.
        """
        held = zip(self._parameters, self._dtypes, self._buffers, strict=True)
        return [_one(parameter, dtype, buffer) for parameter, dtype, buffer in held]


def _one(parameter: nn.Parameter, dtype: torch.dtype, buffer: Tensor | None) -> Tensor:
    found = parameter.grad if buffer is None else buffer
    if found is None:
        return torch.zeros_like(local(parameter), dtype=dtype, requires_grad=False)
    return local(found)


def gradient_norm(grads: Sequence[Tensor]) -> Tensor:
    """Take the Euclidean norm of all gradients together, a scalar in float32 (float64 where gradients are)."""
    exact = torch.float64 if any(grad.dtype == torch.float64 for grad in grads) else torch.float32
    norms: Tensor = torch.stack(torch._foreach_norm(list(grads), 2, dtype=exact))
    norm: Tensor = torch.linalg.vector_norm(norms)
    return norm
