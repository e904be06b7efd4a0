"""What brings tokens to experts on other ranks and back, in phases between which a schedule may put other work.

T tokens of this rank, D model width, K chosen experts, E experts of all ranks, P ranks of the expert-parallel group, L
= E / P experts of one rank, N rows that a rank's experts see, J experts that such a row meets.

A dispatcher drops no token. It works in rounds, so that however the tokens are routed a rank's experts see no more
than `ExpertGroup.most_rows` rows at a time: how many rounds there are is agreed by the group in `prepare`, and a round
in which a rank has nothing to send or to compute is taken part in all the same.

The place for a library such as DeepEP is an offer of this slot. `prepare` is its layout call, and keeps in the plan how
many rounds there are and the handle of each; `dispatch` and `combine` of a round are its calls of those names, wrapped
in an autograd function whose backward pass is the other of the two. It sends a token once to each rank that holds
experts of it, so that a row meets up to K experts: it names them in `Dispatched.experts_NJ`, gives the places that are
no expert of this rank the weight 0, and says so by `row_experts = None`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
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

    row_experts: int | None
    """J, where it does not depend on K; None where it is K."""

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
    """This rank's, from 0; it holds the experts from `place * held` on."""
    experts: int
    """E, a multiple of P."""
    imbalance: float | None = None
    """Rows that a rank's experts see in one round at most, as a multiple of those that each rank would see if all were
    spread evenly; None means any number."""

    @property
    def held(self) -> int:
        """L, the experts of one rank."""
        return self.experts // self.size

    def most_rows(self, rows: int) -> int:
        """N at most, where the ranks of the group route so many rows to their experts in all; at least 1."""
        return max(1, rows if self.imbalance is None else ceil(self.imbalance * rows / self.size))

    def __deepcopy__(self, memo: object) -> ExpertGroup:
        """Itself: a copy of a model sends its tokens among the same ranks."""
        return self


class DispatcherFactory(Protocol):
    """What a dispatcher provider's `factory` names."""

    def __call__(self, config: Any, group: ExpertGroup) -> Dispatcher:
        """Build the dispatcher of `config` for one layer."""
