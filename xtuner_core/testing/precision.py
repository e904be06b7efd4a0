"""The contract suite of precisions."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import nn

from xtuner_core.contracts.batch import pack
from xtuner_core.contracts.precision import Precision, PrecisionPolicy
from xtuner_core.engine.masters import MasterWeights, lift, master_weights
from xtuner_core.hf.coverage import check_coverage
from xtuner_core.hf.materialise import materialise
from xtuner_core.hf.read import read_weights
from xtuner_core.hf.write import export
from xtuner_core.host import Host
from xtuner_core.nn.roles import parameter_role
from xtuner_core.registry import Offer
from xtuner_core.testing.build import bind, build_model, fill, meta_model
from xtuner_core.testing.documents import random_documents
from xtuner_core.testing.suite import OfferSuite

SPREAD = 0.2


class PrecisionContract(OfferSuite):
    """What holds for every precision, on a model that it has never seen."""

    slot: ClassVar[str] = "precision"
    model: ClassVar[str] = "tiny"
    """Name of the model that it is applied to, an offer of the host's active plugins."""
    tolerance: ClassVar[float] = 0.02
    """How far the loss may be from that in float64, as a share of it."""

    @pytest.fixture
    def precision(self, host: Host, offered: Offer, case: int) -> Precision:
        """The precision of a case."""
        made: Precision = self.parts(host, offered, case).make("precision")
        return made

    def test_its_policy_is_four_floating_dtypes(self, precision: Precision) -> None:
        """What the optimizer updates, what is computed in, what gradients and optimizer states are kept in."""
        policy = precision.policy
        dtypes = {item.name: getattr(policy, item.name) for item in fields(PrecisionPolicy)}
        assert all(isinstance(dtype, torch.dtype) and dtype.is_floating_point for dtype in dtypes.values()), dtypes

    def test_prepare_keeps_roles_and_names_on_the_meta_device(self, host: Host, precision: Precision) -> None:
        """Every parameter of the plain model is there with role and layer, and the weight map covers them."""
        plain = meta_model(host, self.model, {}, precision.policy.compute)
        prepared = precision.prepare(meta_model(host, self.model, {}, precision.policy.compute))
        roles = parameter_role(prepared)
        assert {name: roles.get(name) for name in parameter_role(plain)} == parameter_role(plain)
        assert all(parameter.is_meta for parameter in prepared.parameters())
        check_coverage(prepared, cast(Any, prepared).weight_map())

    def test_each_part_of_a_run_has_the_policys_dtype(self, host: Host, precision: Precision) -> None:
        """What the optimizer updates, what the model computes with, what gradients are added up in."""
        model, masters = built(host, self.model, precision)
        policy = precision.policy
        step(model)
        names = {item.name for item in masters.optimized}
        assert {item.tensor.dtype for item in masters.optimized} == {policy.parameter}
        assert {p.dtype for name, p in model.named_parameters() if name in names} == {policy.compute}
        assert {grad.dtype for grad in masters.gradients.sums()} == {policy.reduction}

    def test_weights_go_out_and_come_back_as_they_were(self, host: Host, precision: Precision, tmp_path: Path) -> None:
        """Through a Hugging Face folder, in what the model computes with."""
        model, _ = built(host, self.model, precision)
        folder = export(model, tmp_path / "export")
        again = precision.prepare(meta_model(host, self.model, {}, precision.policy.compute))
        materialise(again, "cpu")
        read_weights(again, cast(Any, again).weight_map(), folder)
        others = dict(again.named_parameters())
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, others[name].to(parameter.dtype)), name

    def test_the_loss_is_near_that_in_float64(self, host: Host, precision: Precision) -> None:
        """Within `tolerance`, and every gradient is finite."""
        model, masters = built(host, self.model, precision)
        found = step(model)
        expected = step(build_model(host, self.model, {}, torch.float64, spread=SPREAD))
        assert abs(found - expected) < self.tolerance * abs(expected)
        assert all(grad.isfinite().all() for grad in masters.gradients.sums())


def built(host: Host, name: str, precision: Precision) -> tuple[nn.Module, MasterWeights]:
    """A model as the engine builds it: prepared on meta, filled in the parameter dtype, set to the compute dtype."""
    policy = precision.policy
    model = precision.prepare(meta_model(host, name, {}, policy.compute))
    followers = lift(model, policy)
    materialise(model, "cpu")
    fill(model, 0, SPREAD)
    bind(host, model.modules(), policy.compute)
    return model, master_weights(model, policy, followers)


def step(model: nn.Module) -> float:
    """The loss of one micro-batch, differentiated; the gradients are left where they are added up."""
    batch = pack(random_documents(257)[:3])
    prediction = model(batch).predictions[0]
    log_probs_T, _ = cast(Any, model).head(prediction.hidden_TD, batch.labels)
    loss = -(log_probs_T * batch.weights).sum() / batch.weights.sum()
    loss.backward()
    return float(loss.detach())
