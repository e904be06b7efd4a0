"""Which rank gets which micro-batches, and which tokens of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch.distributed as dist
from torch import Tensor

from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.parallelism import Ranks
from xtuner_core.data.token_parts import empty, padded, split
from xtuner_core.views import Views

FEW = 16
"""Tokens that a rank trains on, with weight 0, where there is no micro-batch for it."""


def scatter(batches: Sequence[PackedBatch], views: Views) -> list[list[PackedBatch]]:
    """Deal a global batch to the ranks, as many micro-batches to each.

    Neighbours in the list go to different ranks. Where they do not suffice, packs of weight 0 fill up; where a
    sequence is spread over ranks, each gets its share of the tokens, and the pack's filler is extended until they
    divide.

    :return: by rank.
    """
    apart, together = views.working("documents"), views.working("tokens")
    count, parts = views.size(*apart), views.size(*together)
    turns = -(-len(batches) // count)
    spare = [empty(FEW, batches[0])] * (turns * count - len(batches))
    shares = [split(padded(batch, parts), parts) if parts > 1 else [batch] for batch in (*batches, *spare)]
    dealt: list[list[PackedBatch]] = []
    for rank in range(views.world):
        mine, token_part = views.coordinate(rank, *apart), views.coordinate(rank, *together)
        dealt.append([shares[turn * count + mine][token_part] for turn in range(turns)])
    return dealt


def gather(found: Sequence[Sequence[Tensor]], batches: Sequence[PackedBatch], views: Views) -> list[Tensor]:
    """Put together what the ranks computed of each token of the batches that `scatter` dealt.

    :param found: by rank, one tensor a micro-batch, tokens along dim 0.
    :return: by batch, as many tokens as it has.
    """
    import torch

    apart, together = views.working("documents"), views.working("tokens")
    count = views.size(*apart)
    by_place = {(views.coordinate(r, *apart), views.coordinate(r, *together)): r for r in reversed(range(views.world))}
    whole: list[Tensor] = []
    for number, batch in enumerate(batches):
        turn, owner = divmod(number, count)
        parts = [found[by_place[owner, place]][turn] for place in range(views.size(*together))]
        whole.append(torch.cat(parts)[: batch.token_ids.shape[0]])
    return whole


def join(batch: PackedBatch, ranks: Ranks) -> PackedBatch:
    """Let a part of a pack know how sums over all of its parts are taken."""
    if batch.part is None:
        return batch
    axes = ranks.views.working("tokens")

    def add(tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed, group=ranks.group(*axes))
        return summed

    return replace(batch, part=replace(batch.part, add=add))
