"""Configuration of sequence parallelism."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class UlyssesConfig:
    """How many ranks share the tokens of a pack.

    Each has as many consecutive tokens, and within attention all of them for its share of the heads. With S ranks, T
    tokens of a pack, H query heads, G key-value heads, L = lcm(G, S), C channels of a query and V of a value, an
    attention has two all-to-alls forward and two backward. To the first of each a rank hands
    T / S * (H * C + L * (C + V)) entries, of which 1 / S stays with it, and to the second T / S * H * V.
    """

    size: int = 1
    """Ranks that share the tokens of a pack; must divide their number and the query heads of every attention."""

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"size must be a number of ranks, 1 at least, not {self.size!r}")
