"""The smoke test of parallelism strategies on one rank; the suite over ranks comes with the launcher."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import pytest
import torch
from torch import nn

from xtuner_core.contracts.loss import Loss
from xtuner_core.contracts.parallelism import RankContext
from xtuner_core.contracts.precision import PrecisionPolicy
from xtuner_core.engine.ranks.groups import alone
from xtuner_core.engine.ranks.layout import RankLayout
from xtuner_core.hf.coverage import check_coverage
from xtuner_core.hf.materialise import materialise
from xtuner_core.host import Host
from xtuner_core.registry import Offer
from xtuner_core.testing.build import bind, build_model, fill, meta_model
from xtuner_core.testing.documents import PACKINGS, random_documents
from xtuner_core.testing.steps import differentiate, distances
from xtuner_core.testing.suite import OfferSuite

FP64 = PrecisionPolicy(parameter=torch.float64, compute=torch.float64, reduction=torch.float64, state=torch.float64)
SPREAD = 0.2


class ParallelismSmoke(OfferSuite):
    """What holds for every strategy on a single rank, in float64, on a model that it has never seen."""

    slot: ClassVar[str] = "parallelism"
    model: ClassVar[str] = "tiny"
    """Name of the model that it is applied to, an offer of the host's active plugins."""

    @pytest.fixture
    def plain(self, host: Host) -> nn.Module:
        """The model without the strategy."""
        return build_model(host, self.model, {}, torch.float64, spread=SPREAD)

    @pytest.fixture
    def applied(self, host: Host, offered: Offer, case: int) -> nn.Module:
        """The model with the strategy applied, on the meta device."""
        strategy = self.parts(host, offered, case).make(f"parallelism.{offered.name}")
        model, ranks = meta_model(host, self.model, {}, torch.float64), alone()
        layout = RankLayout(ranks.views, ranks.rank)
        layout.begin(model)
        names = frozenset(name for name, _ in model.named_parameters())
        device = self.parts(host, offered, case).make("device", local_rank=0)
        context = RankContext(ranks=ranks, layout=layout, device=device, policy=FP64, followers=names)
        applied: nn.Module = strategy.apply(model, context)
        return applied

    def test_parameters_keep_their_names_and_shapes(self, plain: nn.Module, applied: nn.Module) -> None:
        """And stay on the meta device."""
        shapes = [{name: p.shape for name, p in model.named_parameters()} for model in (plain, applied)]
        assert shapes[0] == shapes[1]
        assert all(parameter.is_meta for parameter in applied.parameters())

    def test_the_weight_map_still_covers_the_model(self, applied: nn.Module) -> None:
        """Every parameter once."""
        check_coverage(applied, cast(Any, applied).weight_map())

    def test_losses_and_gradients_are_those_of_the_plain_model(
        self, host: Host, offered: Offer, case: int, plain: nn.Module, applied: nn.Module
    ) -> None:
        """Within 1e-12, over two micro-batches."""
        materialise(applied, "cpu")
        fill(applied, 0, SPREAD)
        bind(host, applied.modules(), torch.float64)
        loss: Loss = self.parts(host, offered, case).make("loss")
        batches = PACKINGS[1](random_documents(200), 2)
        expected, found = (differentiate(model, loss, batches) for model in (plain, applied))
        assert {name: far for name, far in distances(found, expected).items() if not far < 1e-12} == {}
