"""A stranger's schedule: the layers of the plain blocks in two stages on two ranks, one micro-batch after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xtuner_core.api import Dimension, ParallelismProvider, PluginInfo, hookimpl
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.model import ModelOutput, Prediction
from xtuner_core.contracts.parallelism import Parallelism, RankContext
from xtuner_core.engine.objective import Terms
from xtuner_core.engine.schedule import StepPass
from xtuner_core.nn import Pack, Segments, put

STAGES = 2


@dataclass(kw_only=True)
class PipelineConfig:
    """Two stages."""

    stages: int = STAGES
    """Ranks, one a stage."""


class Absent(nn.Module):
    """Stands where another stage has a module."""


class Pipeline(Parallelism):
    """Cuts the model in two, and drives both halves."""

    def __init__(self, config: PipelineConfig) -> None:
        assert config.stages == STAGES

    def apply(self, model: nn.Module, context: RankContext) -> nn.Module:
        self.model: Any = model
        self.stage = context.ranks.coordinate("dense.stage")
        with torch.device("cpu"):
            self.group = context.ranks.group("dense.stage")
        self.members = context.ranks.views.members(context.ranks.rank, "dense.stage")
        half = len(self.model.layers) // 2
        self.mixed = [layer.layer for layer in self.model.layers if hasattr(layer.feed_forward, "router")]
        self.mine = range(half) if self.stage == 0 else range(half, len(self.model.layers))
        away = [f"layers.{n}" for n in range(len(self.model.layers)) if n not in self.mine]
        for name in [*away, *(("norm", "head") if self.stage == 0 else ("embed",))]:
            put(model, name, Absent())
        for name, _ in model.named_parameters():
            context.layout.held(name, "dense.stage")
        return model

    def run(self, work: StepPass) -> None:
        """Forward and backward of every micro-batch, through both stages."""
        for number, host in enumerate(work.batches, 1):
            batch = work.arrive(host)
            work.begin(number == len(work.batches))
            work.keep(self._first(work, batch) if self.stage == 0 else self._last(work, batch))

    def _first(self, work: StepPass, batch: PackedBatch) -> Terms:
        x_TD = self.model.embed(batch.token_ids)
        x_TD, output = self._layers(x_TD, batch)
        dist.send(x_TD.detach(), self.members[1], group=self.group)
        grad_TD = torch.empty_like(x_TD)
        dist.recv(grad_TD, self.members[1], group=self.group)
        own = {a.name: a.coefficient / max(work.totals.tokens, 1) * a.total for a in output.auxiliary}
        losses = [loss for loss in own.values() if loss.requires_grad]
        torch.autograd.backward([x_TD, *losses], [grad_TD, *(torch.ones_like(loss) for loss in losses)])
        return Terms(parts={"main": x_TD.new_zeros(()), **own}, statistics=output.statistics)

    def _last(self, work: StepPass, batch: PackedBatch) -> Terms:
        width = self.model.norm.weight.shape[0]
        x_TD = torch.empty(batch.token_ids.shape[0], width, dtype=self.model.norm.weight.dtype)
        dist.recv(x_TD, self.members[0], group=self.group)
        h_TD, output = self._layers(x_TD.requires_grad_(), batch)
        predicted = ModelOutput(
            predictions=(Prediction(hidden_TD=self.model.norm(h_TD)),),
            auxiliary=output.auxiliary,
            statistics=output.statistics,
        )
        terms = work.objective.terms(predicted, batch, work.totals)
        torch.autograd.backward(terms.total())
        dist.send(x_TD.grad, self.members[0], group=self.group)
        return terms

    def _layers(self, x_TD: Tensor, batch: PackedBatch) -> tuple[Tensor, ModelOutput]:
        model = self.model
        cos_TP, sin_TP = model.rotary(batch.positions, x_TD.dtype)
        segments = Segments.of(batch, model.balance.scope)
        pack = Pack(batch=batch, cos_TP=cos_TP, sin_TP=sin_TP, segments=segments, cache=None)
        found, loads = [], {}
        for number in self.mine:
            x_TD, auxiliary = model.layers[number](x_TD, pack)
            if auxiliary is not None:
                found.append(auxiliary)
                loads[number] = auxiliary.load_E
        blank = torch.zeros_like(next(iter(loads.values()))) if loads else None
        rows = [loads.get(number, blank) for number in self.mixed]
        statistics = {"expert_load": torch.stack(rows)} if loads else {}
        return x_TD, ModelOutput(predictions=(), auxiliary=model._auxiliary_losses(found), statistics=statistics)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    return PluginInfo(contract="1.0", summary="a test's pipeline")


@hookimpl
def xtuner_parallelisms() -> Iterable[ParallelismProvider[Any]]:
    yield ParallelismProvider(
        name="pipeline",
        factory=f"{__name__}:Pipeline",
        config=PipelineConfig,
        dimensions=(Dimension(name="dense.stage", size="stages", work="parts"),),
        stage="data",
        schedule=True,
        summary="two stages, one after the other",
    )
