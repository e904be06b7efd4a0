"""What an optimizer and a learning-rate schedule are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from xtuner_core.contracts.operator import OperatorUser
from xtuner_core.contracts.weights import Span


class Shards(Protocol):
    """How a parameter is divided among ranks, for an optimizer that looks at whole matrices."""

    shape: tuple[int, ...]
    """Of the whole parameter."""
    divided: tuple[int, ...]
    """Dims along which this rank holds a part only."""

    def gather(self, mine: Tensor, dims: Sequence[int]) -> Tensor:
        """What the ranks hold parts of, whole along these dims; a collective of the ranks that divide them."""

    def cut(self, whole: Tensor, dims: Sequence[int]) -> Tensor:
        """This rank's part along these dims of what `gather` gave for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizedParameter:
    """A parameter as the optimizer sees it."""

    name: str
    """Qualified name in the model."""
    role: str
    layer: int | None
    tensor: Tensor
    """What is updated: the parameter, or its master copy in the precision's parameter dtype; this rank's part of it, a
    plain tensor, where ranks hold parts."""
    learning_rate_factor: float = 1.0
    """Multiplies the learning rate of the step, as the run's rules for this role and layer say."""
    weight_decay: float | None = None
    """As the run's rules say; None leaves it to the optimizer's configuration (`engine.optim.weight_decay`)."""
    group: str = ""
    """Name of the group whose learning rate the rules set, for display; empty where they set none."""
    matrices: tuple[tuple[Span, Span], ...] = ()
    """Rows and columns, in the last two dims, of matrices that lie fused in this parameter and apart in the
    checkpoint (queries, keys and values; gate and up); empty where it is one. The dims before are a stack. Counted in
    the whole parameter."""
    shards: Shards | None = None
    """How it is divided among ranks; None where this rank has all of it."""


class Optimizer(OperatorUser, Protocol):
    """Updates parameters in place."""

    learning_rate: float
    """That of the configuration; the engine multiplies it by the schedule's factor."""
    rates: Mapping[str, float]
    """Groups of parameters, by name, that learn at another rate than the step's: what multiplies it."""

    def step(self, grads: Sequence[Tensor], *, learning_rate: float, grad_scale: float) -> None:
        """One update.

        :param grads: in the order of the parameters, in the precision's reduction dtype; may be overwritten.
        :param grad_scale: multiplies every gradient first (clipping).
        """

    def state_dict(self) -> dict[str, Any]:
        """States by parameter name, and the step count."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        :raises DataError: it was saved of other parameters; then nothing has changed.
        """


class OptimizerFactory(Protocol):
    """What an optimizer provider's `factory` names."""

    def __call__(self, config: Any, parameters: Sequence[OptimizedParameter], *, state_dtype: torch.dtype) -> Optimizer:
        """Build the optimizer; `state_dtype` is the precision's dtype of its states."""


class Schedule(Protocol):
    """A factor on the learning rate."""

    def __call__(self, step: int, steps: int) -> float:
        """Factor of the `step`-th of `steps` optimizer steps, counted from 1; it depends on nothing else.

        :raises ConfigError: the schedule does not fit into so many steps. It is asked before the first step.
        """


class ScheduleFactory(Protocol):
    """What a schedule provider's `factory` names."""

    def __call__(self, config: Any) -> Schedule:
        """Build the schedule of `config`."""
