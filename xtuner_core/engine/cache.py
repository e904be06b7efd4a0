"""A key-value cache in plain PyTorch: one dense block of memory a layer, all sequences side by side.

B sequences, T new tokens of all of them, N new tokens of one, L stored tokens of the longest, H query heads,
G key-value heads, R = H / G, C channels of queries and keys, V channels of values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


class DenseCache:
    """Implements `xtuner_core.contracts.cache.KeyValueCache` for sequences that only grow.

    Before each forward pass `begin` says how many new tokens each sequence has in it. Keys and values keep
    the dtype in which they come; memory grows as it is needed.
    """

    def __init__(self, sequences: int, device: torch.device | str) -> None:
        self._device = device
        self._held = [0] * sequences
        self._new = [0] * sequences
        self._layers: dict[int, list[Tensor]] = {}

    def begin(self, new: Sequence[int]) -> None:
        """Announce a pass with `new[b]` tokens, at least one, of each sequence b, in this order."""
        assert len(new) == len(self._held), new
        assert min(new) > 0, new
        self._held = [held + last for held, last in zip(self._held, self._new, strict=True)]
        self._new = list(new)
        held_B = torch.tensor(self._held)
        new_B = torch.tensor(self._new)
        row_T = torch.arange(len(new)).repeat_interleave(new_B)
        within_T = torch.arange(len(row_T)) - (new_B.cumsum(0) - new_B)[row_T]
        self._row_T = row_T.to(self._device)
        self._position_T = (held_B[row_T] + within_T).to(self._device)
        self._position_L = torch.arange(int((held_B + new_B).max()), device=self._device)

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all sequences but `rows`, which become 0, 1, … in this order."""
        self._held = [self._held[row] for row in rows]
        self._new = [self._new[row] for row in rows]
        chosen = torch.tensor(list(rows), dtype=torch.int64, device=self._device)
        self._layers = {layer: [block[chosen] for block in blocks] for layer, blocks in self._layers.items()}

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
        """Store keys and values, and attend causally within each sequence.

        :param window: how many keys a token sees, itself included.
        :param sinks_H: one more logit a head in the softmax's denominator, without a value.
        :returns: [T, H, channels of the values], in q's dtype.
        """
        k_BLGC, v_BLGV = self._store(layer, k_TGC, v_TGC)
        if max(self._new) == 1:
            return self._decode(q_THC, k_BLGC, v_BLGV, scale, window, sinks_H)
        outputs = []
        for row, q_NHC in enumerate(torch.split(q_THC, self._new)):
            k_LGC, v_LGV = (block[row, : self._held[row] + self._new[row]] for block in (k_BLGC, v_BLGV))
            outputs.append(_prefill(q_NHC, k_LGC, v_LGV, scale, window, sinks_H))
        return torch.cat(outputs)

    def _store(self, layer: int, k_TGC: Tensor, v_TGC: Tensor) -> tuple[Tensor, Tensor]:
        longest = len(self._position_L)
        fresh = (k_TGC, v_TGC)
        blocks = self._layers.setdefault(layer, [new.new_zeros(len(self._held), 0, *new.shape[1:]) for new in fresh])
        if blocks[0].shape[1] < longest:
            # A half more than is needed, so that a token is copied a bounded number of times.
            blocks[:] = [_enlarged(block, longest * 3 // 2 + 16) for block in blocks]
        for block, new in zip(blocks, fresh, strict=True):
            block[self._row_T, self._position_T] = new
        return blocks[0][:, :longest], blocks[1][:, :longest]

    def _decode(
        self,
        q_BHC: Tensor,
        k_BLGC: Tensor,
        v_BLGV: Tensor,
        scale: float,
        window: int | None,
        sinks_H: Tensor | None,
    ) -> Tensor:
        q_BGRC = q_BHC.view(q_BHC.shape[0], k_BLGC.shape[2], -1, q_BHC.shape[-1])
        distance_BL = self._position_T[:, None] - self._position_L
        out_BGRV = _softmax_attention(
            q_BGRC,
            k_BLGC.transpose(1, 2),
            v_BLGV.transpose(1, 2),
            visible=_visible(distance_BL, window)[:, None, None],
            scale=scale,
            sinks=None if sinks_H is None else sinks_H.view(1, *q_BGRC.shape[1:3], 1),
        )
        return out_BGRV.flatten(1, 2)


def _enlarged(block: Tensor, room: int) -> Tensor:
    larger = block.new_zeros(block.shape[0], room, *block.shape[2:])
    larger[:, : block.shape[1]] = block
    return larger


def _prefill(
    q_NHC: Tensor, k_LGC: Tensor, v_LGV: Tensor, scale: float, window: int | None, sinks_H: Tensor | None
) -> Tensor:
    held = k_LGC.shape[0] - q_NHC.shape[0]
    ratio = q_NHC.shape[1] // k_LGC.shape[1]
    k_1HLC, v_1HLV = (part.repeat_interleave(ratio, dim=1).transpose(0, 1)[None] for part in (k_LGC, v_LGV))
    position_L = torch.arange(k_LGC.shape[0], device=q_NHC.device)
    plain = held == 0 and window is None and sinks_H is None
    out_1HNV = _softmax_attention(
        q_NHC.transpose(0, 1)[None],
        k_1HLC,
        v_1HLV,
        visible=None if plain else _visible(position_L[held:, None] - position_L, window),
        scale=scale,
        sinks=None if sinks_H is None else sinks_H.view(1, -1, 1, 1),
    )
    return out_1HNV[0].transpose(0, 1)


def _visible(distance: Tensor, window: int | None) -> Tensor:
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def _softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, *, visible: Tensor | None, scale: float, sinks: Tensor | None
) -> Tensor:
    """Attend; `visible` broadcasts to the scores (None is causal), `sinks` to one column of them."""
    if sinks is None:
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=visible, is_causal=visible is None, scale=scale
        )
    assert visible is not None
    kind = torch.promote_types(q.dtype, torch.float32)
    scores = (q @ k.transpose(-1, -2) * scale).to(kind).masked_fill(~visible, float("-inf"))
    extra = sinks.to(kind).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, extra], dim=-1).softmax(-1)[..., :-1].to(v.dtype) @ v
