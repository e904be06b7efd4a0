"""The key-value cache that generation hands to a model's attention layers.

B sequences, T new tokens of all of them, H query heads, G key-value heads, C channels of a head.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class KeyValueCache(Protocol):
    """Keeps keys and values of the sequences in flight and attends over them."""

    def attend(
        self,
        layer: int,
        q_THC: Tensor,
        k_TGC: Tensor,
        v_TGC: Tensor,
        *,
        scale: float,
        window: int | None = None,
        sinks_H: Tensor | None = None,
    ) -> Tensor:
        """Store the new keys and values of `layer`, and attend over all that the queries' sequences hold.

        :return: [T, H, C of the values].
        """
