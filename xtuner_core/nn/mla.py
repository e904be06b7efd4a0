"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1; DeepSeek-V3, arXiv 2412.19437).

T tokens, D model width, H heads, N channels of a head's content, P rotated channels, C = N + P of a query or key, V
channels of a value, L of the latent vector that keys and values come from, Q of the one that queries come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.cache import KeyValueCache
from xtuner_core.contracts.operator import Use
from xtuner_core.nn.attention import AttentionCore
from xtuner_core.nn.norm import RMSNorm
from xtuner_core.nn.operators import OperatorModule
from xtuner_core.nn.roles import set_role


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSizes:
    """Sizes of multi-head latent attention."""

    heads: int
    """H."""
    content_dim: int
    """N."""
    rotary_dim: int
    """P."""
    value_dim: int
    """V."""
    latent: int
    """L."""
    query_latent: int | None = None
    """Q; None makes queries of the hidden states, without compression."""

    @property
    def head_dim(self) -> int:
        """C."""
        return self.content_dim + self.rotary_dim

    @property
    def queries(self) -> int:
        """Channels of the queries of all heads."""
        return self.heads * self.head_dim


class LatentAttention(OperatorModule):
    """Keys and values come from one short vector a token, and so do queries where they are compressed.

    One matrix, `down`, leads to the queries' latent vector (or to the queries), to that of keys and values and to the
    rotated part of a key, which all heads share; `query_up` and `up` lead from the latent vectors, each normalised, to
    the heads. Of a head's channels the content comes first, then what rotates; `up` has keys first, then values.

    :param dim: D.
    :param layer: index by which a cache knows it.
    :param norm_eps: of the norms of the latent vectors.
    :param scale: multiplies the scores; `C ** -0.5` where None.
    :param interleaved: which channels a rotation pairs; the model's `RotaryTable` must say the same.
    :param window: how many keys a token sees, itself included; None shows it all that precede it.
    :param bias: whether `down` has one; `out_bias` likewise.
    """

    role = "attn"

    def __init__(
        self,
        dim: int,
        sizes: LatentSizes,
        *,
        layer: int,
        norm_eps: float,
        scale: float | None = None,
        interleaved: bool = False,
        window: int | None = None,
        bias: bool = False,
        out_bias: bool = False,
    ) -> None:
        super().__init__()
        self.sizes, self.interleaved = sizes, interleaved
        heads, compressed = sizes.heads, sizes.query_latent
        self.widths = (sizes.queries if compressed is None else compressed, sizes.latent, sizes.rotary_dim)
        self.down = set_role(nn.Linear(dim, sum(self.widths), bias=bias), "attn.qkv")
        if compressed is not None:
            self.query_norm = RMSNorm(compressed, norm_eps)
            self.query_up = set_role(nn.Linear(compressed, sizes.queries, bias=False), "attn.qkv")
        self.latent_norm = RMSNorm(sizes.latent, norm_eps)
        outputs = heads * (sizes.content_dim + sizes.value_dim)
        self.up = set_role(nn.Linear(sizes.latent, outputs, bias=False), "attn.qkv")
        self.core = AttentionCore(
            heads, heads, sizes.head_dim, layer=layer, value_dim=sizes.value_dim, scale=scale, window=window
        )
        self.out = set_role(nn.Linear(heads * sizes.value_dim, dim, bias=out_bias), "attn.out")

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """The operator `rotary`, on the channels that rotate."""
        rotary_dim = self.sizes.rotary_dim
        sizes = {"head_dim": rotary_dim, "rotary_dim": rotary_dim}
        return {"rotary": Use.of("rotary", device, dtype, sizes, {"norm": False, "interleaved": self.interleaved})}

    def forward(
        self,
        x_TD: Tensor,
        cos_TP: Tensor,
        sin_TP: Tensor,
        batch: PackedBatch,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """[T, D] to [T, D]; see `AttentionCore`."""
        query, latent_TL, shared_TP = self.down(x_TD).split(self.widths, dim=-1)
        q_THC = self._queries(query, cos_TP, sin_TP)
        k_THC, v_THV = self._keys_and_values(latent_TL, self._rotate(shared_TP.unsqueeze(1), cos_TP, sin_TP))
        mixed_THV = self.core(q_THC, k_THC, v_THV, batch, cache)
        return self.out(mixed_THV.flatten(1))  # type: ignore[no-any-return]

    def _queries(self, query: Tensor, cos_TP: Tensor, sin_TP: Tensor) -> Tensor:
        """From the latent vector [T, Q], or [T, H * C] where there is none, to rotated queries [T, H, C]."""
        sizes = self.sizes
        if sizes.query_latent is not None:
            query = self.query_up(self.query_norm(query))
        query_THC = query.view(-1, sizes.heads, sizes.head_dim)
        content_THN, rotating_THP = torch.split(query_THC, [sizes.content_dim, sizes.rotary_dim], dim=-1)
        return torch.cat((content_THN, self._rotate(rotating_THP, cos_TP, sin_TP)), dim=-1)

    def _keys_and_values(self, latent_TL: Tensor, shared_T1P: Tensor) -> tuple[Tensor, Tensor]:
        sizes = self.sizes
        both = self.up(self.latent_norm(latent_TL)).unflatten(-1, (sizes.heads, -1))
        content_THN, v_THV = both.split((sizes.content_dim, sizes.value_dim), dim=-1)
        return torch.cat((content_THN, shared_T1P.expand(-1, sizes.heads, -1)), dim=-1), v_THV

    def _rotate(self, x: Tensor, cos_TP: Tensor, sin_TP: Tensor) -> Tensor:
        return self.operator("rotary")(x, cos_TP, sin_TP, interleaved=self.interleaved)  # type: ignore[no-any-return]
