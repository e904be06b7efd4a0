"""A precision that is four dtypes and replaces no module."""

from __future__ import annotations

import torch
from torch import nn

from xtuner_core.builtin.precision.config import Bf16Config, Fp32Config
from xtuner_core.contracts.precision import PrecisionPolicy

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


class PlainPrecision:
    """Four dtypes."""

    def __init__(self, policy: PrecisionPolicy) -> None:
        self.policy = policy

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model as it is."""
        return model


def build(config: Fp32Config | Bf16Config) -> PlainPrecision:
    """Build the precision of `config`."""
    return PlainPrecision(
        PrecisionPolicy(
            parameter=DTYPES[config.parameter],
            compute=DTYPES[config.compute],
            reduction=DTYPES[config.reduction],
            state=DTYPES[config.state],
        )
    )
