"""Puts in the place of every attention core one that has all tokens of its share of the heads."""

from __future__ import annotations

import torch
from torch import nn

from xtuner_core.builtin.ulysses.config import UlyssesConfig
from xtuner_core.builtin.ulysses.core import SharedCore
from xtuner_core.contracts.parallelism import Parallelism, RankContext
from xtuner_core.errors import ConfigError
from xtuner_core.nn import AttentionCore, OperatorModule, iter_roles, put

AXIS = "dense.sequence"


class Ulysses(Parallelism):
    """Sequence parallelism by all-to-all around attention (Jacobs et al. 2023, arXiv 2309.14509, section 3).

    Parameters stay whole on every rank; their gradients are sums over its tokens, which the engine adds up.
    """

    def __init__(self, config: UlyssesConfig) -> None:
        del config  # The views of the ranks were divided by it.

    def apply(self, model: nn.Module, context: RankContext) -> nn.Module:
        """Replace the cores, by role; a rank that has all tokens keeps them.

        :raises ConfigError: the ranks do not divide the heads, or an attention is none that this can share.
        """
        ranks, size = context.ranks, context.ranks.size(AXIS)
        if size == 1:
            return model
        cores = [(item.name, _core(item.name, item.module)) for item in iter_roles(model) if _attends(item.module)]
        _check_heads({core.num_heads for _, core in cores}, size)
        group, place = ranks.group(AXIS), ranks.coordinate(AXIS)
        for name, core in cores:
            put(model, name, SharedCore(core, group, size, place))
        return model


def _attends(module: nn.Module) -> bool:
    """Whether it calls the operator by which tokens see each other."""
    if not isinstance(module, OperatorModule):
        return False
    uses = module.uses(device="meta", dtype=torch.get_default_dtype())
    return any(use.operator == "attention" for use in uses.values())


def _core(name: str, module: nn.Module) -> AttentionCore:
    if type(module) is not AttentionCore:
        raise ConfigError(
            f"{name} is of class {type(module).__name__}, which calls the operator attention by itself, so that "
            "parallelism.ulysses cannot share its heads",
            fix="compose the model of xtuner_core.nn.AttentionCore, or leave parallelism.ulysses out",
        )
    return module


def _check_heads(heads: set[int], size: int) -> None:
    if any(count % size for count in heads):
        fits = [each for each in range(1, min(heads) + 1) if all(count % each == 0 for count in heads)]
        told = " and ".join(map(str, sorted(heads)))
        raise ConfigError(
            f"parallelism.ulysses.size={size} does not divide the {told} query heads of the model's attention",
            fix=f"parallelism.ulysses.size may be {', '.join(map(str, fits))}",
        )
