"""Multi-head attention over packed documents, with grouped key-value heads and optional QK-norm.

T tokens, D model width, H query heads, G key-value heads, C channels of a head, V channels of a value's head, P rotated
channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.cache import KeyValueCache
from xtuner_core.contracts.operator import Use
from xtuner_core.nn.operators import OperatorModule
from xtuner_core.nn.roles import set_role


class AttentionCore(OperatorModule):
    """Attention proper: from rotated queries, keys and values to their mixture.

    Its only parameter are the sinks, where it has any. A sequence-parallel strategy replaces it by role, to exchange
    heads for tokens.

    :param head_dim: C, of queries and keys.
    :param value_dim: V; that of queries and keys where None.
    :param layer: index by which a cache knows it.
    :param scale: multiplies the scores; `head_dim ** -0.5` where None.
    :param window: how many keys a token sees, itself included; None shows it all that precede it.
    :param sinks: whether each head has a logit more in the softmax's denominator (gpt-oss 2025, arXiv 2508.10925).
    """

    role = "attn.core"

    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        layer: int,
        value_dim: int | None = None,
        scale: float | None = None,
        window: int | None = None,
        sinks: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.value_dim = head_dim if value_dim is None else value_dim
        self.layer, self.window = layer, window
        self.scale = head_dim**-0.5 if scale is None else scale
        self.sinks = nn.Parameter(torch.empty(num_heads)) if sinks else None

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """The operator `attention`, causal."""
        sizes = {
            "head_dim": self.head_dim,
            "value_dim": self.value_dim,
            "heads": self.num_heads,
            "kv_heads": self.num_kv_heads,
        }
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
        """[T, H, V]: each token attends to its document up to itself, and to what the cache holds of it."""
        if cache is not None:
            return cache.attend(
                self.layer, q_THC, k_TGC, v_TGV, scale=self.scale, window=self.window, sinks_H=self.sinks
            )
        return self.attend(q_THC, k_TGC, v_TGV, batch, self.sinks)

    def attend(self, q_THC: Tensor, k_TGC: Tensor, v_TGV: Tensor, batch: PackedBatch, sinks_H: Tensor | None) -> Tensor:
        """[T, H, V] of all tokens of a pack, by the operator that was bound."""
        operator = self.operator("attention")
        pack = (batch.cu_seqlens, batch.lengths)
        return operator(q_THC, k_TGC, v_TGV, *pack, self.scale, window=self.window, sinks_H=sinks_H)  # type: ignore[no-any-return]


class Attention(OperatorModule):
    """Projections around `AttentionCore`; queries, keys and values come from one matrix, in this order.

    :param dim: D.
    :param num_heads: H, a multiple of `num_kv_heads` (G).
    :param head_dim: C.
    :param rotary_dim: P, the channels that rotate; all of them where None.
    :param window: how many keys a token sees, itself included; `sinks` as in `AttentionCore`.
    :param qk_norm_eps: RMS-normalises each query and key head before rotation; None leaves them as they are.
    :param bias: whether the projections to queries, keys and values have one; `out_bias` likewise.
    """

    role = "attn"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        layer: int,
        rotary_dim: int | None = None,
        qk_norm_eps: float | None = None,
        bias: bool = False,
        out_bias: bool = False,
        window: int | None = None,
        sinks: bool = False,
    ) -> None:
        super().__init__()
        self.heads = (num_heads, num_kv_heads, num_kv_heads)
        self.head_dim = head_dim
        self.rotary_dim = head_dim if rotary_dim is None else rotary_dim
        self.qk_norm_eps = qk_norm_eps
        self.qkv = set_role(nn.Linear(dim, sum(self.heads) * head_dim, bias=bias), "attn.qkv")
        self.core = AttentionCore(num_heads, num_kv_heads, head_dim, layer=layer, window=window, sinks=sinks)
        self.out = set_role(nn.Linear(num_heads * head_dim, dim, bias=out_bias), "attn.out")
        normed = qk_norm_eps is not None
        self.q_norm = nn.Parameter(torch.empty(head_dim)) if normed else None
        self.k_norm = nn.Parameter(torch.empty(head_dim)) if normed else None
        self.parameter_roles = {"q_norm": "norm", "k_norm": "norm"}

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """The operator `rotary`, with the QK-norm where there is one."""
        sizes = {"head_dim": self.head_dim, "rotary_dim": self.rotary_dim}
        options = {"norm": self.qk_norm_eps is not None, "interleaved": False}
        return {"rotary": Use.of("rotary", device, dtype, sizes, options)}

    def forward(
        self,
        x_TD: Tensor,
        cos_TP: Tensor,
        sin_TP: Tensor,
        batch: PackedBatch,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """[T, D] to [T, D]; see `AttentionCore`."""
        qkv = self.qkv(x_TD).unflatten(-1, (-1, self.head_dim))
        q_THC, k_TGC, v_TGC = qkv.split(self.heads, dim=1)
        q_THC = self._rotate(q_THC, cos_TP, sin_TP, self.q_norm)
        k_TGC = self._rotate(k_TGC, cos_TP, sin_TP, self.k_norm)
        mixed_THC = self.core(q_THC, k_TGC, v_TGC, batch, cache)
        return self.out(mixed_THC.flatten(1))  # type: ignore[no-any-return]

    def _rotate(self, x: Tensor, cos_TP: Tensor, sin_TP: Tensor, norm_C: Tensor | None) -> Tensor:
        rotary = self.operator("rotary")
        if norm_C is None:
            return rotary(x, cos_TP, sin_TP)  # type: ignore[no-any-return]
        return rotary(x, cos_TP, sin_TP, norm_C, self.qk_norm_eps)  # type: ignore[no-any-return]
