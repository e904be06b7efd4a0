"""AdamW in plain PyTorch (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import any_float, statistics_dtype


@torch.no_grad()
def adamw(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    grad_scale: float = 1.0,
) -> None:
    """One update of parameters and moments, in place, as ``torch.optim.AdamW`` defines it.

    Args:
        params: parameters of any shapes.
        grads: their gradients; an implementation may overwrite them with their scaled values.
        exp_avgs: first moments, in any floating-point dtype.
        exp_avg_sqs: second moments, in any floating-point dtype.
        step: 1 at the first update.
        lr: learning rate; the decay of a step is ``lr * weight_decay``.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment after its bias correction.
        weight_decay: decoupled from the gradient.
        grad_scale: multiplies the gradients, as clipping does.
    """
    correction1, correction2 = 1 - beta1**step, 1 - beta2**step
    for param, grad, exp_avg, exp_avg_sq in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
        exact = statistics_dtype(param.dtype)
        grad = grad.to(exact) * grad_scale
        first = exp_avg.to(exact) * beta1 + grad * (1 - beta1)
        second = exp_avg_sq.to(exact) * beta2 + grad.square() * (1 - beta2)
        denominator = (second / correction2).sqrt() + eps
        param.copy_(param.to(exact) * (1 - lr * weight_decay) - lr / correction1 * first / denominator)
        exp_avg.copy_(first)
        exp_avg_sq.copy_(second)


IMPLEMENTATION = Implementation(operator="adamw", name="reference", call=adamw, supports=any_float, tolerance=2e-6)
