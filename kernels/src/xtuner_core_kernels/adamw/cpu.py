"""AdamW for CPU through PyTorch's fused update, one pass over each parameter and its moments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xtuner_core_kernels.operator import Implementation, Use
from xtuner_core_kernels.support import cpu_float


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
    """See ``reference.adamw``; with a ``grad_scale`` other than 1 the gradients are left scaled."""
    if not params:
        return
    divisor = None
    if grad_scale != 1.0 and grad_scale != 0.0 and params[0].dtype == torch.float32:
        # The fused update divides by its scale, a float32 tensor, as loss scaling does.
        divisor = torch.tensor(1 / grad_scale)
    elif grad_scale != 1.0:
        torch._foreach_mul_(list(grads), grad_scale)
    torch._fused_adamw_(
        list(params),
        list(grads),
        list(exp_avgs),
        list(exp_avg_sqs),
        [],
        [torch.tensor(float(step))] * len(params),
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
        grad_scale=divisor,
    )


def supports(use: Use) -> str | None:
    """Moments in the parameters' dtype only; the option ``state_dtype`` is written like ``torch.bfloat16``."""
    if use.option("state_dtype", str(use.dtype)) != str(use.dtype):
        return f"keeps moments in the parameters' {use.dtype}, not in {use.option('state_dtype')}"
    return cpu_float(use)


IMPLEMENTATION = Implementation(
    operator="adamw", name="cpu", call=adamw, supports=supports, preference=10, tolerance=2e-6
)
