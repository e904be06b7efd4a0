"""A stable order of choices by expert, without waiting for the device.

R choices, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sorted_by_expert(experts_R: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sort choices by expert, those of one expert as they stood.

    :param experts_R: int64; `experts` and above are sorted to the end.
    :return: the choice at each place, the place of each choice, and how many choices each expert has; all int64.
    """
    sorted_R, order_R = experts_R.sort(stable=True)
    place_R = torch.empty_like(order_R)
    place_R[order_R] = torch.arange(len(order_R), device=order_R.device)
    edges = torch.arange(experts + 1, device=order_R.device)
    return order_R, place_R, torch.searchsorted(sorted_R, edges).diff()
