"""The dense feed-forward network with a gated unit (Shazeer 2020, arXiv 2002.05202).

T tokens, D model width, F inner width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from xtuner_core.contracts.operator import Use
from xtuner_core.nn.operators import OperatorModule
from xtuner_core.nn.roles import set_role


class MLP(OperatorModule):
    """`down(silu(gate(x)) * up(x))`; gate and up are one matrix [2 F, D], the gate's rows first.

    :param dim: D.
    :param ff: F.
    """

    role = "mlp"

    def __init__(self, dim: int, ff: int, *, bias: bool = False) -> None:
        super().__init__()
        self.gate_up = set_role(nn.Linear(dim, 2 * ff, bias=bias), "mlp.up")
        self.down = set_role(nn.Linear(ff, dim, bias=bias), "mlp.down")
        self.ff = ff

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """The operator `swiglu`."""
        return {"swiglu": Use.of("swiglu", device, dtype, sizes={"ff": self.ff})}

    def forward(self, x_TD: Tensor) -> Tensor:
        """[T, D] to [T, D]."""
        return self.down(self.operator("swiglu")(self.gate_up(x_TD)))  # type: ignore[no-any-return]
