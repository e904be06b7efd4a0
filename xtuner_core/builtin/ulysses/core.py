"""Attention of a rank that has its share of the tokens, and within attention all tokens of its share of the heads.

S ranks, T tokens of the pack, N = T / S of a rank, H query heads, G key-value heads, C channels of a head, V channels
of a value's head, W channels that one rank sends another of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from xtuner_core.builtin.ulysses.exchange import exchange
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.cache import KeyValueCache
from xtuner_core.contracts.operator import Use
from xtuner_core.nn import AttentionCore


class SharedCore(AttentionCore):
    """What an `AttentionCore` computes, on ranks that share the tokens of a pack.

    One all-to-all brings queries, keys and values, another brings the outputs back, and as many backward. Where the
    ranks do not divide the key-value heads, each of these is sent as often as is needed until they do.

    :param core: whose place it takes; the ranks divide its query heads.
    :param group: the ranks that share a pack.
    :param size: S; `place` is where this rank stands among them.
    """

    def __init__(self, core: AttentionCore, group: ProcessGroup, size: int, place: int) -> None:
        super().__init__(
            core.num_heads,
            core.num_kv_heads,
            core.head_dim,
            layer=core.layer,
            value_dim=core.value_dim,
            scale=core.scale,
            window=core.window,
        )
        self.sinks = core.sinks
        self.group, self.size, self.place = group, size, place
        self.repeats = lcm(core.num_kv_heads, size) // core.num_kv_heads
        self.local_heads = (core.num_heads // size, core.num_kv_heads * self.repeats // size)

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """The operator `attention`, on this rank's heads."""
        sizes = {"head_dim": self.head_dim, "value_dim": self.value_dim}
        sizes |= dict(zip(("heads", "kv_heads"), self.local_heads, strict=True))
        options = {"causal": True, "window": self.window, "sinks": self.sinks is not None}
        return {"attention": Use.of("attention", device, dtype, sizes, options)}

    def forward(
        self,
        q_THC: Tensor,
        k_TGC: Tensor,
        v_TGV: Tensor,
        batch: PackedBatch,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """[N, H, V] of this rank's tokens; with a cache, of which every rank holds all, as on one rank."""
        if cache is not None:
            return super().forward(q_THC, k_TGC, v_TGV, batch, cache)
        assert batch.part is not None, "a pack comes to ranks that share it in parts"
        heads, kv_heads = self.local_heads
        shapes = ((heads, self.head_dim), (kv_heads, self.head_dim), (kv_heads, self.value_dim))
        k_TGC, v_TGV = (x.repeat_interleave(self.repeats, dim=1) if self.repeats > 1 else x for x in (k_TGC, v_TGV))
        sent_NSW = torch.cat([torch.unflatten(x.flatten(1), 1, (self.size, -1)) for x in (q_THC, k_TGC, v_TGV)], dim=-1)
        all_TW = exchange(self.group, sent_NSW.transpose(0, 1)).flatten(0, 1)
        parts = torch.split(all_TW, [count * width for count, width in shapes], dim=-1)
        q, k, v = (torch.unflatten(part, -1, shape) for part, shape in zip(parts, shapes, strict=True))
        mixed_THV = self.attend(q, k, v, batch, self._sinks())
        return self._brought_back(mixed_THV)

    def _brought_back(self, mixed_THV: Tensor) -> Tensor:
        """From all tokens of this rank's heads to [N, H, V]."""
        received_SNHV = exchange(self.group, torch.unflatten(mixed_THV, 0, (self.size, -1)))
        return received_SNHV.transpose(0, 1).flatten(1, 2)

    def _sinks(self) -> Tensor | None:
        """Those of this rank's heads."""
        heads = self.local_heads[0]
        return None if self.sinks is None else self.sinks[self.place * heads : (self.place + 1) * heads]
