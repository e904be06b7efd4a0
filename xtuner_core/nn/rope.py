"""Rotary position embedding: cosines and sines of a pack's positions (Su et al. 2021, arXiv 2104.09864).

T tokens, P rotated channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class RotaryConfig:
    """What the frequencies are made from."""

    dim: int
    """P, even."""
    theta: float
    """Base of the wavelengths."""


Frequencies: TypeAlias = Callable[[RotaryConfig, torch.dtype], tuple[Tensor, float]]
"""From a configuration and a dtype to the inverse frequencies [P/2] on the CPU and a factor on cosine and
sine. Scaled variants are further functions of this type (`rope_scaling`)."""


def default_frequencies(config: RotaryConfig, dtype: torch.dtype) -> tuple[Tensor, float]:
    """`theta ** (-2i / P)` (section 3.3), and no factor."""
    exponents = torch.arange(0, config.dim, 2, dtype=dtype, device="cpu") / config.dim
    return 1.0 / config.theta**exponents, 1.0


class RotaryTable(nn.Module):
    """Cosines and sines of the positions of one pack.

    It holds no tensor at all, so nothing can be cast to a short dtype or lost between the meta device and
    memory: the frequencies come from the configuration at each forward, on the CPU so that every device sees
    the same bits.

    :param interleaved: whether channel 2i pairs with 2i + 1, and not i with i + P/2.
    """

    role = "attn.core"

    def __init__(
        self, config: RotaryConfig, frequencies: Frequencies = default_frequencies, *, interleaved: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.frequencies = frequencies
        self.interleaved = interleaved

    def forward(self, positions_T: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine [T, P], each angle standing twice: one half after the other, or in a row if interleaved.

        :param positions_T: int or float [T].
        :param dtype: of the result; angles are taken in float32, and in float64 where the result is.
        """
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        inverse, factor = self.frequencies(self.config, exact)
        angles = positions_T.to(exact)[:, None] * inverse.to(positions_T.device, non_blocking=True)
        angles_TP = angles.repeat_interleave(2, -1) if self.interleaved else torch.cat((angles, angles), dim=-1)
        return (angles_TP.cos() * factor).to(dtype), (angles_TP.sin() * factor).to(dtype)
