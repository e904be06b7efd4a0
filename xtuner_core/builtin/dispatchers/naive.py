"""Dispatcher naive: all tokens come to every rank, whose experts take theirs, and the outputs are summed.

T tokens of this rank, S the most that a rank of the group has, P ranks, A = P * S tokens of all with those that fill
up, D width, K chosen experts, E experts of all ranks, N rows of this rank's experts.

Bytes that a rank gives to collectives for one layer, with rows of e bytes an entry and weights of w:

| | forward | backward |
| --- | --- | --- |
| counts, all-gather | 8 (E + 1) | |
| choices and weights, all-gather | S K (8 + w) | A K w, reduce-scatter |
| tokens, all-gather | S D e | A D e, reduce-scatter |
| outputs, reduce-scatter | A D e | S D e, all-gather |

Where there are several rounds, each moves tokens and outputs, and in the backward pass gathers the tokens once more.
The host waits for the device once in the forward pass, for P * (P + 1) counts, and never in the backward pass.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from xtuner_core.builtin.dispatchers.collectives import gather, scatter_sum, shared_counts
from xtuner_core.builtin.dispatchers.order import sorted_by_expert
from xtuner_core.builtin.dispatchers.rounds import Traffic
from xtuner_core.builtin.dispatchers.rows import Rows, gather_sum, spread
from xtuner_core.contracts.dispatcher import Dispatched, ExpertGroup


class Gathered(NamedTuple):
    """The plan of one layer."""

    rows: Rows
    """Those of this rank's experts, sorted by expert; of the tokens of all ranks."""
    weights_N: Tensor
    experts_N: Tensor
    """int64: counted within this rank."""
    traffic: Traffic
    fill: int
    """Tokens that bring this rank's to S."""

    @property
    def rounds(self) -> int:
        """The same on every rank of the group."""
        return self.traffic.rounds


class Naive:
    """A `contracts.dispatcher.Dispatcher`; it has no configuration."""

    row_experts = 1

    def __init__(self, config: None, group: ExpertGroup) -> None:
        del config
        self._group = group

    def prepare(self, weights_TK: Tensor, experts_TK: Tensor) -> Gathered:
        """Bring all choices here, and find those of this rank's experts."""
        group = self._group
        traffic, tokens = self._counted(experts_TK)
        fill = max(1, *tokens) - len(experts_TK)
        experts_AK = gather(group.group, _filled(experts_TK, fill, group.experts))
        weights_AK = gather(group.group, _filled(weights_TK, fill, 0))
        # Others' experts are sorted to the end, whatever they are.
        own = experts_AK.flatten() - group.place * group.held
        own = own.where((own >= 0) & (own < group.held), group.held)
        order, place, _ = sorted_by_expert(own, group.held)
        count = traffic.arriving[group.place]
        order_N, place_AK = order[:count], place.where(place < count, -1).view_as(experts_AK)
        choices = Rows(order_N, place_AK.view(-1, 1), whole=False)
        weights_N = spread(weights_AK.reshape(-1, 1), lambda: choices).squeeze(1)
        rows = Rows(order_N // experts_TK.shape[1], place_AK, whole=False)
        return Gathered(rows, weights_N, own[order_N], traffic, fill)

    def dispatch(self, x_TD: Tensor, plan: Gathered, turn: int = 0) -> Dispatched:
        """Gather the tokens, and take a round's rows of them."""
        x_AD = gather(self._group.group, _filled(x_TD, plan.fill, 0))
        window = plan.traffic.window(self._group.place, turn)
        experts_N, weights_N = plan.experts_N[window], plan.weights_N[window]
        return Dispatched(spread(x_AD, partial(self._rows, plan, turn)), experts_N.unsqueeze(1), weights_N.unsqueeze(1))

    def combine(self, rows_ND: Tensor, plan: Gathered, turn: int = 0) -> Tensor:
        """Sum what all ranks computed for this one's tokens."""
        y_SD = scatter_sum(self._group.group, gather_sum(rows_ND, partial(self._rows, plan, turn)))
        return y_SD[: len(y_SD) - plan.fill]

    def _rows(self, plan: Gathered, turn: int) -> Rows:
        if plan.rounds == 1:
            return plan.rows
        every_N = torch.arange(len(plan.rows.token_R), device=plan.rows.token_R.device)
        return plan.rows.some(every_N[plan.traffic.window(self._group.place, turn)])

    def _counted(self, experts_TK: Tensor) -> tuple[Traffic, list[int]]:
        """How many rows each rank has for each other, and how many tokens."""
        group = self._group
        *_, counts_E = sorted_by_expert(experts_TK.flatten(), group.experts)
        mine = torch.cat([counts_E, counts_E.new_full((1,), len(experts_TK))])
        found = shared_counts(group.group, mine)
        rows_PP = found[:, :-1].view(group.size, group.size, group.held).sum(2)
        read: list[list[int]] = torch.cat([rows_PP, found[:, -1:]], dim=1).tolist()
        rows = [each[:-1] for each in read]
        return Traffic(rows, group.most_rows(sum(map(sum, rows)))), [each[-1] for each in read]


def _filled(x_TD: Tensor, fill: int, value: int) -> Tensor:
    """With so many more tokens."""
    return functional.pad(x_TD, (0, 0, 0, fill), value=value) if fill else x_TD
