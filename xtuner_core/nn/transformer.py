"""The decoder: layers, their stack, and the causal language model that implements `contracts.model.Model`.

T tokens, D model width, P rotated channels of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.cache import KeyValueCache
from xtuner_core.contracts.model import AuxiliaryLoss, ModelOutput, Prediction, Scope
from xtuner_core.contracts.weights import WeightMap
from xtuner_core.nn.attention import Attention
from xtuner_core.nn.balance import Balance, Segments
from xtuner_core.nn.embedding import TokenEmbedding
from xtuner_core.nn.head import TokenHead
from xtuner_core.nn.mla import LatentAttention
from xtuner_core.nn.mlp import MLP
from xtuner_core.nn.moe import MoE, MoEAuxiliary
from xtuner_core.nn.norm import RMSNorm
from xtuner_core.nn.rope import RotaryTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """What every layer needs to know of the pack beside its hidden states."""

    batch: PackedBatch
    cos_TP: Tensor
    sin_TP: Tensor
    segments: Segments | None
    """None where no auxiliary sums are wanted."""
    cache: KeyValueCache | None


class DecoderLayer(nn.Module):
    """Attention, then a feed-forward block, each on the normalised stream and added back to it.

    :param layer: index in the stack.
    """

    role = "layer"

    def __init__(
        self,
        layer: int,
        attention: Attention | LatentAttention,
        feed_forward: MLP | MoE,
        norm: Callable[[], RMSNorm],
    ) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm = norm()
        self.attention = attention
        self.feed_forward_norm = norm()
        self.feed_forward = feed_forward

    def forward(self, x_TD: Tensor, pack: Pack) -> tuple[Tensor, MoEAuxiliary | None]:
        """[T, D] to [T, D], with a mixture's auxiliary sums."""
        normed_TD = self.attention_norm(x_TD)
        x_TD = x_TD + self.attention(normed_TD, pack.cos_TP, pack.sin_TP, pack.batch, pack.cache)
        normed_TD = self.feed_forward_norm(x_TD)
        if isinstance(self.feed_forward, MoE):
            y_TD, auxiliary = self.feed_forward(normed_TD, pack.segments)
            return x_TD + y_TD, auxiliary
        return x_TD + self.feed_forward(normed_TD), None


class CausalLM(nn.Module, ABC):
    """Embedding, layers, last norm and head; a model plugin composes them and adds the weight map.

    :param config: the model's configuration.
    :param tied: whether embedding and head are one matrix.
    """

    def __init__(
        self,
        config: Any,
        *,
        embed: TokenEmbedding,
        layers: Iterable[DecoderLayer],
        norm: RMSNorm,
        rotary: RotaryTable,
        balance: Balance,
        tied: bool,
    ) -> None:
        super().__init__()
        self.config = config
        self.balance = balance
        self.tied = tied
        self.embed = embed
        self.rotary = rotary
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.head = TokenHead(*embed.weight.shape, tied=embed.weight if tied else None)

    def forward(self, batch: PackedBatch, cache: KeyValueCache | None = None) -> ModelOutput:
        """Hidden states of every token of the pack.

        With a cache the documents continue what it holds, and there are no auxiliary losses or statistics.
        """
        x_TD = self.embed(batch.token_ids)
        cos_TP, sin_TP = self.rotary(batch.positions, x_TD.dtype)
        segments = Segments.of(batch, self.balance.scope) if cache is None else None
        pack = Pack(batch=batch, cos_TP=cos_TP, sin_TP=sin_TP, segments=segments, cache=cache)
        found: list[MoEAuxiliary] = []
        for layer in self.layers:
            x_TD, auxiliary = layer(x_TD, pack)
            found += [] if auxiliary is None else [auxiliary]
        return ModelOutput(
            predictions=(Prediction(hidden_TD=self.norm(x_TD)),),
            auxiliary=self._auxiliary_losses(found),
            statistics={"expert_load": torch.stack([item.load_E for item in found])} if found else {},
        )

    def _auxiliary_losses(self, found: list[MoEAuxiliary]) -> tuple[AuxiliaryLoss, ...]:
        choice = self.balance
        balance = [item.balance for item in found if item.balance is not None]
        z = [item.z for item in found if item.z is not None]
        scope: Scope = "document"
        asked = (
            ("balance", balance, choice.coefficient, choice.scope),
            ("z", z, choice.z_coefficient, scope),
        )
        return tuple(
            AuxiliaryLoss(name=name, total=torch.stack(terms).sum(), coefficient=coefficient, scope=scope)
            for name, terms, coefficient, scope in asked
            if terms
        )

    @abstractmethod
    def weight_map(self) -> WeightMap:
        """Where each tensor of the checkpoint lies."""

    def after_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Nothing: no persistent buffer follows the load."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Leaving the meta device gives every module a parameter of its own, shared or not.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.tied:
            self.head.weight = self.embed.weight
        return self
