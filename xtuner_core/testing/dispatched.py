"""What the dispatcher suite does on each rank: routings that are hard to serve, each against one process.

T tokens of this rank, A those of all, D model width, K chosen experts, E experts of all ranks, L of one, F expert
width, N rows that a rank's experts see, J experts that such a row meets.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from xtuner_core_kernels.experts.reference import experts as reference
from xtuner_core_kernels.testing import relative_error

from xtuner_core.contracts.dispatcher import Dispatcher, ExpertGroup
from xtuner_core.loading import load
from xtuner_core.nn import MoE
from xtuner_core.testing.watch import Watched, watching

D, F, K = 6, 4, 2
EXPERTS_OF_A_RANK = 2


class Routing(NamedTuple):
    """One case, as plain data."""

    name: str
    tokens: Sequence[int]
    """Of each rank."""
    experts_AK: Sequence[Sequence[int]]
    imbalance: float | None
    dtype: str = "float64"


def routings(ranks: int) -> Iterator[Routing]:
    """What a dispatcher must serve on so many ranks, in one round and in several."""
    last = EXPERTS_OF_A_RANK * ranks - 1
    even, few = [5] * ranks, [3, *[4] * (ranks - 1)]
    drawn = torch.randint(0, last + 1, (5 * ranks, K), generator=torch.Generator().manual_seed(0)).tolist()
    fewer = [[expert % last for expert in row] for row in drawn]
    makeup = {
        "balanced": (even, drawn),
        "all tokens to one expert": (even, [[last, last]] * 5 * ranks),
        "all tokens to one rank": (even, [[0, 1]] * 5 * ranks),
        "an expert with none": (few, fewer[: sum(few)]),
        "tokens that ranks do not divide": (few, drawn[: sum(few)]),
        "one token": ([1, *[0] * (ranks - 1)], [[last, 0]]),
        "a rank without tokens": ([0, *even[1:]], drawn[5:]),
        "no token at all": ([0] * ranks, []),
        "a token that names an expert twice": (few, [[2, 2], *drawn[1 : sum(few)]]),
    }
    for name, (tokens, experts_AK) in makeup.items():
        for imbalance in (None, 1.0, 0.3):
            yield Routing(name, tokens, experts_AK, imbalance)
    yield Routing("in bfloat16", even, drawn, None, "bfloat16")


class EveryExpert(nn.Module):
    """This rank's experts, each computed on every row, which asks nothing of the host; keeps how many rows came."""

    def __init__(self, gate_up_LFD: Tensor, down_LDF: Tensor) -> None:
        super().__init__()
        self.gate_up, self.down = nn.Parameter(gate_up_LFD.clone()), nn.Parameter(down_LDF.clone())
        self.seen: list[int] = []

    def forward(self, rows_ND: Tensor, experts_NJ: Tensor, weights_NJ: Tensor | None) -> Tensor:
        """[N, D]."""
        self.seen.append(len(rows_ND))
        weights_NJ = torch.ones_like(experts_NJ, dtype=rows_ND.dtype) if weights_NJ is None else weights_NJ
        y_ND = torch.zeros_like(rows_ND)
        for expert, (gate_up_FD, down_DF) in enumerate(zip(self.gate_up, self.down, strict=True)):
            gate_NF, up_NF = functional.linear(rows_ND, gate_up_FD).chunk(2, dim=1)
            share_N1 = (weights_NJ * (experts_NJ == expert)).sum(1, keepdim=True)
            y_ND = y_ND + share_N1.to(y_ND.dtype) * functional.linear(functional.silu(gate_NF) * up_NF, down_DF)
        return y_ND


class Problem(NamedTuple):
    """The tensors of all ranks; drawn alike on each."""

    x_AD: Tensor
    weights_AK: Tensor
    gate_up_EFD: Tensor
    down_EDF: Tensor
    grad_AD: Tensor

    @classmethod
    def of(cls, tokens: int, experts: int, dtype: torch.dtype) -> Problem:
        """Draw it."""
        generator = torch.Generator().manual_seed(1)
        shapes = ((tokens, D), (tokens, K), (experts, 2 * F, D), (experts, D, F), (tokens, D))
        return cls(*(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes))

    def solved(self, experts_AK: Tensor) -> tuple[Tensor, ...]:
        """Output and gradients of tokens, weights and experts, in one process and float64."""
        parts = [part.double().requires_grad_() for part in self[:4]]
        x_AD, weights_AK, gate_up_EFD, down_EDF = parts
        y_AD = reference(x_AD, gate_up_EFD, down_EDF, weights_AK, experts_AK)
        return y_AD.detach(), *torch.autograd.grad(y_AD, parts, self.grad_AD.double())


def serve(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Work through all cases on this rank; see `answer`."""
    group = dist.group.WORLD if dist.is_initialized() else None
    return [answer(payload, Routing(*case), group) for case in payload["cases"]]


def answer(payload: Mapping[str, Any], case: Routing, group: dist.ProcessGroup | None) -> dict[str, Any]:
    """One case on this rank: how far each result is from one process, and what was asked of ranks and of the host.

    :param payload: `factory`, `plugin`, `distribution`, `config` (`"module:Class"` or None) and its `values`.
    """
    rank, ranks = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
    experts = EXPERTS_OF_A_RANK * ranks
    alike = ExpertGroup(group=group, size=ranks, place=rank, experts=experts, imbalance=case.imbalance)
    problem = Problem.of(sum(case.tokens), experts, getattr(torch, case.dtype))
    experts_AK = torch.tensor(case.experts_AK, dtype=torch.int64).view(-1, K)
    end = list(accumulate(case.tokens))[rank]
    mine, held = slice(end - case.tokens[rank], end), slice(rank * alike.held, (rank + 1) * alike.held)
    block = _block(_dispatcher(payload, alike), problem, held)
    found, forward, backward, rounds = _run(block, problem, experts_AK, mine)
    y_AD, x_AD, weights_AK, *matrices = problem.solved(experts_AK)
    expected = [y_AD[mine], x_AD[mine], weights_AK[mine], *(each[held] for each in matrices)]
    names = ("output", "tokens", "weights", "gate_up", "down")
    return {
        "case": case.name,
        "errors": {name: relative_error(a, b) for name, a, b in zip(names, found, expected, strict=True)},
        "rounds": rounds,
        "rows": max(block.experts.seen),
        "most": alike.most_rows(experts_AK.numel()),
        "collectives": [forward.collectives, backward.collectives],
        "waits": [forward.waits, backward.waits],
    }


def _dispatcher(payload: Mapping[str, Any], group: ExpertGroup) -> Dispatcher:
    factory = load(payload["factory"], plugin=payload["plugin"], distribution=payload["distribution"])
    config = None
    if payload["config"]:
        module, _, name = payload["config"].partition(":")
        config = getattr(importlib.import_module(module), name)(**payload["values"])
    # Models are copied, and their dispatchers with them.
    made: Dispatcher = deepcopy(factory(config, group))
    return made


def _block(dispatcher: Dispatcher, problem: Problem, held: slice) -> Any:
    block: Any = MoE(D, F, len(problem.gate_up_EFD), K, normalise=False)
    del block.dispatcher
    block.dispatcher = dispatcher
    block.experts = EveryExpert(problem.gate_up_EFD[held], problem.down_EDF[held])
    return block


def _run(block: Any, problem: Problem, experts_AK: Tensor, mine: slice) -> tuple[list[Tensor], Watched, Watched, int]:
    """Output and gradients of this rank, what the two passes asked for, and the rounds."""
    x_TD, weights_TK = (part[mine].clone().requires_grad_() for part in problem[:2])
    with watching() as forward:
        plan = block.dispatcher.prepare(weights_TK, experts_AK[mine])
        y_TD = block.mix(x_TD, plan)
    with watching() as backward:
        y_TD.backward(problem.grad_AD[mine])
    with torch.no_grad():
        again_TD = block.mix(x_TD, block.dispatcher.prepare(weights_TK, experts_AK[mine]))
    assert torch.equal(y_TD, again_TD), "without gradients the output is another"
    leaves = (x_TD, weights_TK, block.experts.gate_up, block.experts.down)
    missing = [index for index, leaf in enumerate(leaves) if leaf.grad is None]
    assert not missing, f"no gradient reaches {missing} of tokens, weights, gate_up and down"
    return [y_TD.detach(), *(leaf.grad for leaf in leaves)], forward, backward, plan.rounds
