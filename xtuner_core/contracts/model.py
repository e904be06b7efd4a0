"""What a model is to the engine: hidden states and auxiliary losses from a pack, a head, a weight map.

T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

from torch import Tensor, nn

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.cache import KeyValueCache
from xtuner_core.contracts.counts import ParameterCount
from xtuner_core.contracts.weights import WeightMap

Scope = Literal["document", "step", "micro_batch"]
"""Over which tokens an auxiliary loss takes its means. `document` and `step` do not depend on how the work
is split; `micro_batch` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One set of next-token predictions; a plain model makes one, multi-token prediction several."""

    name: str = "main"
    hidden_TD: Tensor
    labels: str = "labels"
    """Name of the batch's field that holds the targets."""
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuxiliaryLoss:
    """A loss that the model asks for beside the main one.

    The engine adds `coefficient * total / (real tokens of the whole step)`.
    """

    name: str
    total: Tensor
    """Scalar: the sum over the pack's real tokens (a mean over a scope counts once for each of its tokens)."""
    coefficient: float
    scope: Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutput:
    """What a forward pass returns; never logits."""

    predictions: tuple[Prediction, ...]
    auxiliary: tuple[AuxiliaryLoss, ...] = ()
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    """Sums over the pack's real tokens, without gradient, that the engine adds up over micro-batches and
    ranks: `expert_load` is float32 [MoE layers, experts]."""


class ModelConfig(Protocol):
    """The configuration dataclass of a model provider; its module imports no torch."""

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Self:
        """From a Hugging Face `config.json`; keys that change nothing here (`dtype`, `architectures`) are passed over.

        :raises ValueError: the file asks for something that this model does not do; says which key.
        """

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` that `transformers` loads; `from_hf` of it equals this configuration."""

    def parameter_count(self) -> ParameterCount:
        """By formula, without building anything."""

    def flops(self, lengths: Sequence[int]) -> int:
        """Floating point operations of one forward and backward pass over documents of these lengths.

        A multiply-add is 2; backward is twice forward; attention counts the causal half; recomputation and
        element-wise work count nothing.
        """


class LanguageHead(Protocol):
    """The module of role `head`. Its `forward` is what the engine calls, so that hooks of a parallelism see it."""

    def __call__(
        self, hidden_TD: Tensor, targets_T: Tensor | None = None, *, entropy: bool = False
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """Score targets, or return the logits [T, V] where there are none.

        :return: log-probabilities of `targets_T`, float [T], 0 where the target is negative; and the entropy,
            float [T], or None where it was not asked for.
        """


class Model(Protocol):
    """An `nn.Module` built on the meta device whose modules carry roles (`xtuner_core.roles`)."""

    config: Any
    head: LanguageHead

    def forward(self, batch: PackedBatch, cache: KeyValueCache | None = None) -> ModelOutput:
        """Hidden states of every token of the pack; with a cache, continues the documents it holds."""

    def weight_map(self) -> WeightMap:
        """Where each tensor of the checkpoint lies; covers every parameter and persistent buffer once."""

    def after_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Update persistent buffers from the step's summed statistics (routing bias); most models do nothing."""


class ModelFactory(Protocol):
    """What a model provider's `factory` names."""

    def __call__(self, config: Any) -> nn.Module:
        """Build the model of `config` on the current default device (the engine sets it to meta)."""
