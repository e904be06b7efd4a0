"""With a key-value cache the model continues a document as if it had seen it whole.

T new tokens, S tokens stored, H query heads, G key-value heads, C channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from xtuner_core_qwen3_moe.config import Qwen3MoeConfig

from xtuner_core.contracts.batch import Document, pack


class OneSequence:
    """A cache of one sequence, in plain PyTorch."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[Tensor, Tensor]] = {}

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
        assert window is None
        assert sinks_H is None
        new = (k_TGC, v_TGC)
        held = self.held[layer] = tuple(
            torch.cat(pair) for pair in zip(self.held.get(layer, ()) or tuple(n[:0] for n in new), new, strict=True)
        )
        k_GSC, v_GSC = (item.transpose(0, 1) for item in held)
        tokens, stored = q_THC.shape[0], k_GSC.shape[1]
        seen_TS = torch.arange(stored)[None] <= torch.arange(stored - tokens, stored)[:, None]
        mixed_HTC = functional.scaled_dot_product_attention(
            q_THC.transpose(0, 1)[None], k_GSC[None], v_GSC[None], seen_TS, scale=scale, enable_gqa=True
        )[0]
        return mixed_HTC.transpose(0, 1)


def test_a_document_continued_in_pieces_has_the_hidden_states_of_the_whole(make_model):
    config = Qwen3MoeConfig(
        vocab_size=40, hidden_size=24, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, mlp_only_layers=[1]
    )
    model = make_model(config, spread=0.2)
    token_ids = torch.randint(40, (17,), generator=torch.Generator().manual_seed(2))
    whole_TD = model(pack([Document.of(token_ids)])).predictions[0].hidden_TD
    cache, pieces = OneSequence(), []
    for start, stop in ((0, 6), (6, 7), (7, 17)):
        piece = Document.of(token_ids[start:stop])
        placed = Document(
            token_ids=piece.token_ids,
            labels=piece.labels,
            weights=piece.weights,
            positions=torch.arange(start, stop),
        )
        output = model(pack([placed]), cache)
        assert output.auxiliary == ()
        pieces.append(output.predictions[0].hidden_TD)
    torch.testing.assert_close(torch.cat(pieces), whole_TD, rtol=0, atol=1e-12)
