"""Choice of experts by softmax and top-k, in plain PyTorch (Fedus et al. 2021, arXiv 2101.03961, section 2.1).

Shapes: T tokens, E experts, K experts chosen for a token.
"""

from __future__ import annotations

from torch import Tensor

from xtuner_core_kernels.operator import Implementation
from xtuner_core_kernels.support import any_float, statistics_dtype


def router(logits_TE: Tensor, top_k: int, normalise: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The experts of the K highest probabilities, softmax being taken over all experts first.

    Args:
        logits_TE: ``[T, E]``.
        top_k: K.
        normalise: whether the chosen weights are divided by their sum.

    Returns:
        Weights ``[T, K]`` in float32 at least, largest first; experts int64 ``[T, K]``, ties as ``torch.topk``
        resolves them; probabilities ``[T, E]`` in the weights' dtype. Weights and probabilities are differentiable.
    """
    probs_TE = logits_TE.softmax(-1, dtype=statistics_dtype(logits_TE.dtype))
    weights_TK, experts_TK = probs_TE.topk(top_k, dim=-1)
    if normalise:
        weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
    return weights_TK, experts_TK, probs_TE


IMPLEMENTATION = Implementation(operator="router", name="reference", call=router, supports=any_float, tolerance=2e-6)
