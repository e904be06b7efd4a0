"""The mixture-of-experts block, dropless, in phases: route, dispatch, experts, combine.

T tokens, D model width, E experts, K chosen experts, F expert width, N rows that a rank's experts see, J
experts that such a row meets (K where nothing was sent, 1 where a dispatcher sent one row for each choice).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

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


class Dispatched(NamedTuple):
    """What this rank's experts compute on."""

    rows_ND: Tensor
    experts_NJ: Tensor
    """int64: experts of each row, counted within this rank."""
    weights_NJ: Tensor | None
    """Applied by the experts; None where `combine` applies them."""


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


class LocalDispatcher(nn.Module):
    """One rank holds every expert: nothing is sent, and the experts gather and weigh their rows themselves.

    A strategy that spreads experts over ranks replaces it, by role, with one that has these two methods.
    """

    role = "moe.dispatch"

    def dispatch(self, x_TD: Tensor, routing: Routing) -> Dispatched:
        """Bring each token to its experts."""
        return Dispatched(x_TD, routing.experts_TK, routing.weights_TK)

    def combine(self, rows_ND: Tensor, dispatched: Dispatched, routing: Routing) -> Tensor:
        """Bring the experts' outputs back, [T, D]."""
        del dispatched, routing
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
        self.dispatcher = LocalDispatcher()
        self.experts = Experts(dim, ff, experts, top_k)

    def route(self, x_TD: Tensor) -> Routing:
        """Choose experts."""
        return self.router(x_TD)  # type: ignore[no-any-return]

    def dispatch(self, x_TD: Tensor, routing: Routing) -> Dispatched:
        """Bring tokens to experts."""
        return self.dispatcher.dispatch(x_TD, routing)

    def apply_experts(self, dispatched: Dispatched) -> Tensor:
        """Compute the experts' outputs, [N, D]."""
        return self.experts(*dispatched)  # type: ignore[no-any-return]

    def combine(self, rows_ND: Tensor, dispatched: Dispatched, routing: Routing) -> Tensor:
        """Bring outputs back to tokens, [T, D]."""
        return self.dispatcher.combine(rows_ND, dispatched, routing)

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
        dispatched = self.dispatch(x_TD, routing)
        y_TD = self.combine(self.apply_experts(dispatched), dispatched, routing)
        return y_TD, None if segments is None else self.auxiliary(routing, segments)
