"""Configuration of expert parallelism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xtuner_core.api import pick


@dataclass(kw_only=True)
class ExpertParallelConfig:
    """How many ranks share the experts of a layer, and what brings tokens to them.

    Memory of the experts of a layer is bounded whatever the routing. T tokens of a rank's pack, K chosen experts, P
    ranks, D model width, F expert width; with packs of one length, the experts of a rank see N <= imbalance * T * K
    rows in one round. In entries of the compute dtype, with one round N (D + 2 F) are kept for the backward pass, with
    several only the layer's input, T D. While a round is computed, forward or backward, there are besides at most
    2 N (2 D + 3 F) of the experts, 4 T K D of rows on their way (`naive`: 2 P T D in their place) and 3 T D of the
    layer's output and gradients; and indices, 64 bytes for each of the T K choices (`naive`: of all ranks).
    """

    size: int | str = "auto"
    """Ranks that share the experts of a layer; must divide their number. `auto` takes all that other strategies leave
    of the expert view."""
    dispatcher: Any = pick("dispatcher", default="all_to_all")
    """What brings tokens to experts and back."""
    imbalance: float | None = 2.0
    """Rows that a rank's experts see at once at most, as a multiple of those it would see if tokens were spread evenly.
    Where routing asks for more, a layer works in several rounds, and computes each again in the backward pass; null
    always works in one, whatever memory it takes."""

    def __post_init__(self) -> None:
        if self.size != "auto" and (not isinstance(self.size, int) or self.size < 1):
            raise ValueError(f"size must be a number of ranks, 1 at least, or auto, not {self.size!r}")
        if self.imbalance is not None and not self.imbalance > 0:
            raise ValueError(f"imbalance must be above 0, or null, not {self.imbalance}")
