"""Divides the experts of every mixture among ranks, and puts a dispatcher where tokens went to experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from xtuner_core.builtin.expert_parallel.config import ExpertParallelConfig
from xtuner_core.contracts.dispatcher import Dispatched, Dispatcher, ExpertGroup, Plan
from xtuner_core.contracts.parallelism import Parallelism, RankContext
from xtuner_core.errors import ConfigError, ContractError
from xtuner_core.nn import iter_roles, put, set_role
from xtuner_core.roles import matches

AXIS = "expert.parallel"
EXPERTS, DISPATCH = "moe.experts", "moe.dispatch"


class ExpertDispatch(nn.Module):
    """A dispatcher at its place in the model; it holds no parameters."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher

    def prepare(self, weights_TK: Tensor, experts_TK: Tensor) -> Plan:
        """Find out how many rows go where."""
        return self.dispatcher.prepare(weights_TK, experts_TK)

    def dispatch(self, x_TD: Tensor, plan: Plan, turn: int = 0) -> Dispatched:
        """Bring a round's tokens to their experts."""
        return self.dispatcher.dispatch(x_TD, plan, turn)

    def combine(self, rows_ND: Tensor, plan: Plan, turn: int = 0) -> Tensor:
        """Bring the experts' outputs of a round back."""
        return self.dispatcher.combine(rows_ND, plan, turn)


class ExpertParallel(Parallelism):
    """Each rank holds a block of consecutive experts of every layer (Lepikhin et al. 2020, arXiv 2006.16668).

    :param dispatcher: makes one for a layer.
    """

    def __init__(self, config: ExpertParallelConfig, dispatcher: Callable[..., Dispatcher]) -> None:
        self._imbalance = config.imbalance
        self._dispatcher = dispatcher

    def apply(self, model: nn.Module, context: RankContext) -> nn.Module:
        """Keep this rank's experts, and replace what brings tokens to them; one rank keeps the model as it is.

        :raises ConfigError: the model mixes no experts, or the ranks do not divide them.
        :raises ContractError: it has experts without a module of role `moe.dispatch` beside them.
        """
        mixtures, size = _mixtures(model), context.ranks.size(AXIS)
        if size == 1:
            return model
        with torch.device("cpu"):  # groups are made of real tensors, while the model is on the meta device
            group = context.ranks.group(AXIS)
        for name, (experts, dispatch) in mixtures.items():
            module = model.get_submodule(experts)
            count = _experts(name, module)
            _refuse_indivisible(name, count, size)
            place = context.ranks.coordinate(AXIS)
            shared = ExpertGroup(group=group, size=size, place=place, experts=count, imbalance=self._imbalance)
            dispatcher = self._dispatcher(shared)
            put(model, dispatch, set_role(ExpertDispatch(dispatcher), DISPATCH))
            if dispatcher.row_experts is not None:
                module.top_k = dispatcher.row_experts  # type: ignore[assignment]
            self._keep(module, experts, count // size, context)
        return model

    def _keep(self, module: nn.Module, name: str, held: int, context: RankContext) -> None:
        """Make room for this rank's experts only; the model is on the meta device."""
        for leaf, whole in list(module.named_parameters(recurse=False)):
            mine = nn.Parameter(whole.new_empty(held, *whole.shape[1:]), requires_grad=whole.requires_grad)
            mine.__dict__.update(whole.__dict__)
            setattr(module, leaf, mine)
            context.layout.split(f"{name}.{leaf}", 0, AXIS)


def build(config: ExpertParallelConfig, *, nested: Mapping[str, Callable[..., Any]]) -> ExpertParallel:
    """Build the strategy of `config`.

    :raises ConfigError: no dispatcher is picked.
    """
    if "dispatcher" not in nested:
        raise ConfigError(
            "parallelism.expert_parallel has no dispatcher to bring tokens to experts with",
            fix="set parallelism.expert_parallel.dispatcher=all_to_all",
            plugin="expert_parallel",
        )
    return ExpertParallel(config, nested["dispatcher"])


def _mixtures(model: nn.Module) -> dict[str, tuple[str, str]]:
    """Names of the experts and of the dispatch module in each mixture, by the name of the block around both.

    :raises ConfigError: there is no mixture.
    :raises ContractError: one has experts and no dispatch, or the other way.
    """
    found: dict[str, dict[str, str]] = {}
    for item in iter_roles(model):
        for role in (EXPERTS, DISPATCH):
            if matches(item.role, role):
                found.setdefault(item.name.rpartition(".")[0], {})[role] = item.name
    if not found:
        raise ConfigError(
            "parallelism.expert_parallel divides experts among ranks, and this model has no module of role moe.experts",
            fix="leave it out",
            plugin="expert_parallel",
        )
    broken = [name for name, roles in found.items() if len(roles) < 2]
    if broken:
        raise ContractError(
            f"{', '.join(broken)}: the model has only one of the roles {EXPERTS} and {DISPATCH} there",
            fix="give the model's mixture a module of each role, side by side, as `xtuner_core.nn.MoE` has",
        )
    return {name: (roles[EXPERTS], roles[DISPATCH]) for name, roles in found.items()}


def _experts(name: str, module: nn.Module) -> int:
    counts = {parameter.shape[0] for parameter in module.parameters(recurse=False)}
    assert len(counts) == 1, f"the experts of {name} are stacked along the first dim of every parameter"
    return counts.pop()


def _refuse_indivisible(name: str, experts: int, size: int) -> None:
    if experts % size:
        fits = [count for count in range(1, experts + 1) if experts % count == 0]
        raise ConfigError(
            f"parallelism.expert_parallel.size={size} does not divide the {experts} experts of {name}",
            fix=f"parallelism.expert_parallel.size may be {', '.join(map(str, fits))}",
            plugin="expert_parallel",
        )
