"""Dispatcher all_to_all: a row for each choice, sent to the rank of its expert and back.

T tokens of this rank, D width, K chosen experts, R = T * K routed rows of this rank, P ranks, L experts of each, E = P
* L, N rows that arrive here.

Rows are sorted by expert, so by destination as well. The router's weight travels with its row and is applied by the
experts, as where nothing is sent: then the outputs that come back are only added up, and need not be kept for the
backward pass. Which expert a row is for follows from the counts, which every rank has of all.

Bytes that a rank gives to collectives for one layer, with rows of e bytes an entry and weights of w, rows that stay on
the rank included (of balanced ones 1 / P):

| | forward | backward |
| --- | --- | --- |
| counts, all-gather | 8 E | |
| tokens and weights | R (D e + w) | N (D e + w) |
| outputs | N D e | R D e |

Where there are several rounds these are the sums over them, and the backward pass sends tokens and weights once more.
The host waits for the device once in the forward pass, for P * P counts, and never in the backward pass.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from xtuner_core.builtin.dispatchers.collectives import exchange, shared_counts
from xtuner_core.builtin.dispatchers.order import sorted_by_expert
from xtuner_core.builtin.dispatchers.rounds import Traffic, lengths
from xtuner_core.builtin.dispatchers.rows import Rows, gather_sum, spread
from xtuner_core.contracts.dispatcher import Dispatched, ExpertGroup


class Routes(NamedTuple):
    """The plan of one layer."""

    rows: Rows
    """This rank's, sorted by expert."""
    weights_R: Tensor
    """In the order of the rows."""
    arriving_N: Tensor
    """int64: the expert of each row that arrives in all rounds, counted within this rank."""
    traffic: Traffic

    @property
    def rounds(self) -> int:
        """The same on every rank of the group."""
        return self.traffic.rounds


class AllToAll:
    """A `contracts.dispatcher.Dispatcher`; it has no configuration."""

    row_experts = 1

    def __init__(self, config: None, group: ExpertGroup) -> None:
        del config
        self._group = group

    def prepare(self, weights_TK: Tensor, experts_TK: Tensor) -> Routes:
        """Sort the rows, and tell every rank how many go where."""
        group, chosen = self._group, experts_TK.shape[1]
        order_R, place_R, counts_E = sorted_by_expert(experts_TK.flatten(), group.experts)
        rows = Rows(order_R // chosen, place_R.view_as(experts_TK), whole=True)
        counts_PPL = shared_counts(group.group, counts_E).view(group.size, group.size, group.held)
        counts: list[list[int]] = counts_PPL.sum(2).tolist()
        traffic = Traffic(counts, group.most_rows(sum(map(sum, counts))))
        experts_PL = torch.arange(group.held, device=order_R.device).repeat(group.size)
        arriving_N = experts_PL.repeat_interleave(
            counts_PPL[:, group.place].flatten(), output_size=traffic.arriving[group.place]
        )
        choices = Rows(order_R, place_R.unsqueeze(1), whole=True)
        weights_R = spread(weights_TK.reshape(-1, 1), lambda: choices).squeeze(1)
        return Routes(rows, weights_R, arriving_N, traffic)

    def dispatch(self, x_TD: Tensor, plan: Routes, turn: int = 0) -> Dispatched:
        """Send a round's tokens with their weights."""
        group, traffic = self._group, plan.traffic
        sent = traffic.sent(group.place, turn)
        weights_R = plan.weights_R if plan.rounds == 1 else torch.cat([plan.weights_R[each] for each in sent])
        received = traffic.received(group.place, turn)
        rows_ND, weights_N = exchange(
            group.group, lengths(sent), received, spread(x_TD, partial(self._rows, plan, turn)), weights_R
        )
        experts_N = plan.arriving_N[traffic.window(group.place, turn)]
        return Dispatched(rows_ND, experts_N.unsqueeze(1), weights_N.unsqueeze(1))

    def combine(self, rows_ND: Tensor, plan: Routes, turn: int = 0) -> Tensor:
        """Send outputs home, and sum those of each token."""
        group, traffic = self._group, plan.traffic
        home = lengths(traffic.sent(group.place, turn))
        (rows_RD,) = exchange(group.group, traffic.received(group.place, turn), home, rows_ND)
        return gather_sum(rows_RD, partial(self._rows, plan, turn))

    def _rows(self, plan: Routes, turn: int) -> Rows:
        """This rank's rows that travel in a round."""
        if plan.rounds == 1:
            return plan.rows
        every_R = torch.arange(len(plan.rows.token_R), device=plan.rows.token_R.device)
        return plan.rows.some(torch.cat([every_R[each] for each in plan.traffic.sent(self._group.place, turn)]))
