"""RMS normalisation.

D model width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from xtuner_core.contracts.operator import Use
from xtuner_core.nn.operators import OperatorModule


class RMSNorm(OperatorModule):
    """`weight * x / rms(x)` over the last dim (Zhang and Sennrich 2019, arXiv 1910.07467).

    :param dim: D.
    :param eps: added to the mean square.
    """

    role = "norm"

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """The operator `rms_norm`."""
        return {"rms_norm": Use.of("rms_norm", device, dtype, sizes={"dim": self.weight.shape[0]})}

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [..., D] to the same shape and dtype."""
        return self.operator("rms_norm")(x, self.weight, self.eps)  # type: ignore[no-any-return]
