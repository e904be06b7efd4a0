"""Orthogonalisation by Newton-Schulz iteration (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

S stack, M rows, N columns.

With X = U diag(s) V^T of Frobenius norm at most 1, one iteration X <- a X + b (X X^T) X + c (X X^T)^2 X maps each
singular value s to a s + b s^3 + c s^5 and keeps U and V. The published coefficients raise small values as fast as
they can and leave the result between about 0.7 and 1.2 instead of at 1, which training does not notice.
"""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of Jordan et al. 2024."""


def orthogonalised(matrices_SMN: Tensor, *, steps: int, eps: float, dtype: torch.dtype) -> Tensor:
    """Each matrix of a stack with its singular values brought near 1, [S, M, N] in `dtype`.

    :param matrices_SMN: float [S, M, N].
    :param eps: least Frobenius norm that a matrix is divided by.
    :param dtype: of the iteration; the norm is taken in the matrices' own.
    """
    a, b, c = COEFFICIENTS
    norm_S11 = torch.linalg.matrix_norm(matrices_SMN, keepdim=True).clamp(min=eps)
    x = (matrices_SMN / norm_S11).to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    # The Gram matrix of the shorter side is the smaller one.
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    found: Tensor = x.mT if tall else x
    return found
