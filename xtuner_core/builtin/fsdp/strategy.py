"""The parallelism fsdp: applies PyTorch's `fully_shard` to the units of a model, and steers it through a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from xtuner_core.builtin.fsdp.config import FsdpConfig
from xtuner_core.builtin.fsdp.placement import Spread
from xtuner_core.builtin.fsdp.prefetch import ask_ahead
from xtuner_core.builtin.fsdp.shard import Sharder
from xtuner_core.builtin.fsdp.units import DENSE, EXPERT, ROOT, head_names, layer_names, plan_units
from xtuner_core.contracts.parallelism import Parallelism, RankContext
from xtuner_core.contracts.precision import PrecisionPolicy
from xtuner_core.errors import ConfigError


class Fsdp(Parallelism):
    """Fully sharded data parallelism (Zhao et al. 2023, arXiv 2304.11277), HSDP where there are replicas.

    Gradients are sums over the ranks, never means.
    """

    def __init__(self, config: FsdpConfig) -> None:
        self._config = config

    def apply(self, model: nn.Module, context: RankContext) -> nn.Module:
        """Shard every unit and tell the layout; a rank alone keeps the model as it is.

        :raises ConfigError: a setting that cannot be kept.
        :raises ContractError: the model's parameters cannot be divided into units.
        """
        if context.ranks.world_size == 1:
            _refuse_alone(self._config)
            return model
        _refuse_narrow_sums(self._config, context.policy)
        views = context.ranks.views
        # Ranks that are given the same tokens have a place in the dense view alone, where their gradients count once.
        alike = any(views.size(*views.working(work)) > 1 for work in ("same", "parts"))
        spreads = {view: Spread.over(views, DENSE if alike else view) for view in (DENSE, EXPERT)}
        apart = not spreads[DENSE].same_ranks(spreads[EXPERT], views)
        units = plan_units(model, context.followers, experts_apart=apart)
        heads = head_names(model)
        # Meshes are made of real tensors, while the model is on the meta device.
        with torch.device("cpu"):
            sharder = Sharder(self._config, context, spreads, frozenset([ROOT, *heads]))
            for unit in units:
                sharder(model, unit)
        ask_ahead(model, units, layer_names(model), heads, self._config.prefetch)
        return model

    def filled(self, model: nn.Module) -> None:
        """Make FSDP's shards those that the model now holds, so that they stay the memory that the optimizer keeps."""
        if isinstance(model, FSDPModule):
            model._apply(_to_host if self._config.offload else _as_it_is)  # type: ignore[no-untyped-call]

    def micro_batch(self, model: nn.Module, *, last: bool) -> None:
        """Sum gradients over ranks after the last micro-batch only, where that was asked for."""
        if not isinstance(model, FSDPModule):
            return
        if self._config.reduce == "step":
            model.set_requires_gradient_sync(last)
        if self._config.reshard_after_forward == "never":
            model.set_reshard_after_backward(last)

    def scored(self, model: nn.Module) -> None:
        """Leave no weight whole: the next forward pass must gather what the optimizer has changed by then."""
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def build(config: FsdpConfig) -> Fsdp:
    """Build the strategy of `config`."""
    return Fsdp(config)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _to_host(tensor: Tensor) -> Tensor:
    """Parameters go, buffers stay."""
    return tensor.cpu() if isinstance(tensor, nn.Parameter) else tensor


def _refuse_alone(config: FsdpConfig) -> None:
    if config.offload:
        raise ConfigError(
            "offload=true of the parallelism fsdp moves shards, and a rank alone has none",
            fix="start two ranks or more, or set offload=false",
            plugin="fsdp",
        )


def _refuse_narrow_sums(config: FsdpConfig, policy: PrecisionPolicy) -> None:
    """Between micro-batches FSDP keeps sums in the dtype of the parameters."""
    narrow = torch.promote_types(policy.parameter, policy.reduction) != policy.parameter
    if config.reduce == "micro_batch" and narrow:
        raise ConfigError(
            f"reduce=micro_batch of the parallelism fsdp adds gradients up in the parameters' {policy.parameter}, and "
            f"the precision adds them up in {policy.reduction}",
            fix="set reduce=step, or give parameters and gradient sums one dtype",
            plugin="fsdp",
        )
