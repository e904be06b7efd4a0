"""The mixture-of-experts block, dropless, in phases: route, prepare, dispatch, experts, combine.

T tokens, D model width, E experts, K chosen experts, F expert width, N rows that a rank's experts see, J
experts that such a row meets (K where nothing was sent, 1 where a dispatcher sent one row for each choice).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from xtuner_core.contracts.dispatcher import Dispatched, Plan
from xtuner_core.contracts.operator import Use
from xtuner_core.nn.balance import Balance, Segments, count_choices, load_balancing_loss, z_loss
from xtuner_core.nn.operators import OperatorModule


class Routing(NamedTuple):
    """A router's choices."""

    weights_TK: Tensor
    """Float32 at least: what each chosen expert's output counts."""
    experts_TK: Tensor
    """int64: the chosen experts."""
    probs_TE: Tensor
    """In the weights' dtype: probabilities over all experts."""
    logits_TE: Tensor


class MoEAuxiliary(NamedTuple):
    """What a block hands to the model beside its output; sums over the pack's real tokens."""

    load_E: Tensor
    """Float32, without gradient: how often each expert was chosen."""
    balance: Tensor | None
    z: Tensor | None


class Router(OperatorModule):
    """Softmax over all experts, then top-k (Fedus et al. 2021, arXiv 2101.03961, section 2.1).

    :param dim: D.
    :param experts: E.
    :param top_k: K.
    :param normalise: whether a token's K weights are divided by their sum.
    """

    role = "moe.router"

    def __init__(self, dim: int, experts: int, top_k: int, *, normalise: bool) -> None:
        super().__init__()
        self.experts, self.top_k, self.normalise = experts, top_k, normalise
        self.weight = nn.Parameter(torch.empty(experts, dim))

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """The operator `router`."""
        sizes = {"experts": self.experts, "top_k": self.top_k}
        return {"router": Use.of("router", device, dtype, sizes, {"normalise": self.normalise})}

    def forward(self, x_TD: Tensor) -> Routing:
        """Choose K experts for each token; softmax and weights in float32 at least."""
        logits_TE = functional.linear(x_TD, self.weight)
        weights_TK, experts_TK, probs_TE = self.operator("router")(logits_TE, self.top_k, self.normalise)
        return Routing(weights_TK, experts_TK, probs_TE, logits_TE)


class Experts(OperatorModule):
    """The stacked SwiGLU experts: `gate_up` [E, 2 F, D], the gate's rows first, and `down` [E, D, F]."""

    role = "moe.experts"

    def __init__(self, dim: int, ff: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * ff, dim))
        self.down = nn.Parameter(torch.empty(experts, dim, ff))

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """The operator `experts`."""
        experts, dim, ff = self.down.shape
        sizes = {"experts": experts, "top_k": self.top_k, "dim": dim, "ff": ff}
        return {"experts": Use.of("experts", device, dtype, sizes)}

    def forward(self, rows_ND: Tensor, experts_NJ: Tensor, weights_NJ: Tensor | None) -> Tensor:
        """[N, D]: the sum over each row's experts."""
        operator = self.operator("experts")
        return operator(rows_ND, self.gate_up, self.down, weights_NJ, experts_NJ)  # type: ignore[no-any-return]


class LocalPlan(NamedTuple):
    """Every expert is here, and gathers and weighs its rows itself."""

    weights_TK: Tensor
    experts_TK: Tensor
    rounds: int = 1


class LocalDispatcher(nn.Module):
    """A `contracts.dispatcher.Dispatcher` for one rank that holds every expert: nothing is sent.

    A strategy that spreads experts over ranks replaces it, by role.
    """

    role = "moe.dispatch"

    def prepare(self, weights_TK: Tensor, experts_TK: Tensor) -> LocalPlan:
        """Keep the choices."""
        return LocalPlan(weights_TK, experts_TK)

    def dispatch(self, x_TD: Tensor, plan: LocalPlan, turn: int = 0) -> Dispatched:
        """Bring each token to its experts."""
        del turn
        return Dispatched(x_TD, plan.experts_TK, plan.weights_TK)

    def combine(self, rows_ND: Tensor, plan: LocalPlan, turn: int = 0) -> Tensor:
        """Bring the experts' outputs back, [T, D]."""
        del plan, turn
        return rows_ND


class MoE(nn.Module):
    """The block; a schedule may call its phases itself and put other work between them.

    :param balance: losses on the router's choices.
    """

    role = "moe"

    def __init__(
        self, dim: int, ff: int, experts: int, top_k: int, *, normalise: bool, balance: Balance | None = None
    ) -> None:
        super().__init__()
        self.balance = balance or Balance()
        self.router = Router(dim, experts, top_k, normalise=normalise)
        self.dispatcher: Any = LocalDispatcher()
        self.experts = Experts(dim, ff, experts, top_k)

    def route(self, x_TD: Tensor) -> Routing:
        """Choose experts."""
        return self.router(x_TD)  # type: ignore[no-any-return]

    def prepare(self, routing: Routing) -> Plan:
        """Find out what goes where."""
        return self.dispatcher.prepare(routing.weights_TK, routing.experts_TK)  # type: ignore[no-any-return]

    def dispatch(self, x_TD: Tensor, plan: Plan, turn: int = 0) -> Dispatched:
        """Bring tokens to experts."""
        return self.dispatcher.dispatch(x_TD, plan, turn)  # type: ignore[no-any-return]

    def apply_experts(self, dispatched: Dispatched) -> Tensor:
        """Compute the experts' outputs, [N, D]."""
        return self.experts(*dispatched)  # type: ignore[no-any-return]

    def combine(self, rows_ND: Tensor, plan: Plan, turn: int = 0) -> Tensor:
        """Bring outputs back to tokens, [T, D]."""
        return self.dispatcher.combine(rows_ND, plan, turn)  # type: ignore[no-any-return]

    def mix(self, x_TD: Tensor, plan: Plan) -> Tensor:
        """Compute the sum over each token's experts, [T, D].

        Where there are several rounds, each is computed again in the backward pass instead of kept, so that memory
        holds one of them at a time.
        """
        if plan.rounds == 1:
            return self._round(x_TD, plan, 0)
        y_TD = torch.zeros_like(x_TD)
        for number in range(plan.rounds):
            again = checkpoint(self._round, x_TD, plan, number, use_reentrant=False, preserve_rng_state=False)
            y_TD = y_TD + again
        return y_TD

    def _round(self, x_TD: Tensor, plan: Plan, number: int) -> Tensor:
        return self.combine(self.apply_experts(self.dispatch(x_TD, plan, number)), plan, number)

    def auxiliary(self, routing: Routing, segments: Segments) -> MoEAuxiliary:
        """Losses and load of these choices."""
        choice = self.balance
        counts_SE = count_choices(routing.experts_TK, routing.probs_TE.shape[1], segments)
        return MoEAuxiliary(
            load_E=counts_SE.sum(0),
            balance=load_balancing_loss(routing.probs_TE, counts_SE, segments, routing.experts_TK.shape[1])
            if choice.coefficient
            else None,
            z=z_loss(routing.logits_TE, segments.tokens) if choice.z_coefficient else None,
        )

    def forward(self, x_TD: Tensor, segments: Segments | None = None) -> tuple[Tensor, MoEAuxiliary | None]:
        """[T, D] to [T, D], with the auxiliary sums over `segments` where they are given."""
        routing = self.route(x_TD)
        y_TD = self.mix(x_TD, self.prepare(routing))
        return y_TD, None if segments is None else self.auxiliary(routing, segments)
