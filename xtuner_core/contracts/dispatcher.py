"""What brings tokens to experts on other ranks and back, in phases between which a schedule may put other work.

T tokens of this rank, D model width, K chosen experts, E experts of all ranks, P ranks of the expert-parallel group, L
= E / P experts of one rank, N rows that a rank's experts see, J experts that such a row meets.

A dispatcher drops no token. It works in rounds, so that whatever the imbalance a rank holds no more than `max_rows`
rows at a time: how many rounds there are is agreed by the group in `prepare`, and a round in which a rank has nothing
to send or to compute is taken part in all the same. The place for a library such as DeepEP is here: its dispatch and
combine are one round, its handle travels in `Plan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Dispatched(NamedTuple):
    """What this rank's experts compute on."""

    rows_ND: Tensor
    experts_NJ: Tensor
    """int64: experts of each row, counted within this rank."""
    weights_NJ: Tensor | None
    """Applied by the experts; None where `combine` applies them."""


class Plan(Protocol):
    """What `prepare` found out; a dispatcher adds what it needs."""

    rounds: int
    """At least 1, the same on every rank of the group."""


class Dispatcher(Protocol):
    """Sends tokens. Nothing in it may be recomputed differently: routing comes in, and is never made here."""

    def prepare(self, weights_TK: Tensor, experts_TK: Tensor) -> Plan:
        """Find out how many rows go where. The one phase that may wait for the device, once."""

    def dispatch(self, x_TD: Tensor, plan: Plan, turn: int = 0) -> Dispatched:
        """Bring a round's tokens to their experts; differentiable in `x_TD` and in the plan's weights."""

    def combine(self, rows_ND: Tensor, plan: Plan, turn: int = 0) -> Tensor:
        """Bring the experts' outputs of a round back: its share of [T, D], which sums over rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertGroup:
    """The ranks among which a layer's experts are divided, in blocks of consecutive experts."""

    group: ProcessGroup | None
    """None where this rank is alone."""
    size: int
    """P."""
    place: int
    """This rank's, from 0; it holds the experts from `place * experts // size` on."""
    experts: int
    """E, a multiple of P."""
    max_rows: int | None = None
    """Rows that a rank's experts see in one round at most; None means any number."""


class DispatcherFactory(Protocol):
    """What a dispatcher provider's `factory` names."""

    def __call__(self, config: Any, group: ExpertGroup) -> Dispatcher:
        """Build the dispatcher of `config` for one layer."""
