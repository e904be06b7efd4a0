"""The contract suite of operator implementations: against the operator's reference, which is taken in float64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from xtuner_core_kernels.testing import relative_error, results_and_gradients

from xtuner_core.contracts.operator import Implementation, Use
from xtuner_core.host import Host
from xtuner_core.loading import load
from xtuner_core.registry import Offer
from xtuner_core.testing.suite import OfferSuite

NOWHERE = "meta"
"""A device on which nothing is computed: no fast implementation serves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCase:
    """A use, and a call of it."""

    use: Use
    inputs: Sequence[Tensor]
    """The differentiable inputs, float64 on the CPU (`xtuner_core_kernels.testing.random` draws them)."""
    call: Callable[[Callable[..., Any], Sequence[Tensor]], Any]
    """Calls an implementation on these inputs, whatever their dtype and device, with the other arguments of its own."""


class OperatorContract(OfferSuite, ABC):
    """What holds for every implementation of an operator; `offer` is `operator.implementation`."""

    slot: ClassVar[str] = "operator"

    @abstractmethod
    def cases(self) -> Sequence[OperatorCase]:
        """Uses that it serves: small, large, ragged, with each option."""

    def refused(self) -> Sequence[Use]:
        """Uses that it does not serve, beside those on a device where nothing is computed."""
        return ()

    @pytest.fixture
    def implementation(self, offered: Offer) -> Implementation:
        """What is tested."""
        return _load(offered)

    @pytest.fixture
    def reference(self, host: Host, implementation: Implementation) -> Implementation:
        """The operator's reference, which the core's own plugin offers."""
        offer = host.registry.find("operator", f"{implementation.operator}.reference")
        assert offer is not None, f"no active plugin has a reference of the operator {implementation.operator!r}"
        return _load(offer)

    def test_its_record_bears_the_name_of_its_offer(self, implementation: Implementation, offered: Offer) -> None:
        """`operator.implementation`, by which a run pins it."""
        assert f"{implementation.operator}.{implementation.name}" == offered.name
        assert implementation.tolerance > 0

    def test_it_serves_its_cases(self, implementation: Implementation) -> None:
        """`supports` answers None."""
        assert {case.use: implementation.supports(case.use) for case in self.cases()} == dict.fromkeys(
            (case.use for case in self.cases()), None
        )

    def test_it_refuses_the_rest_in_a_sentence(self, implementation: Implementation) -> None:
        """On another device, and wherever else the test says."""
        first = self.cases()[0].use
        for use in (replace(first, device=NOWHERE), *self.refused()):
            reason = implementation.supports(use)
            assert reason, f"it claims to serve {use}"
            assert "\n" not in reason

    def test_results_and_gradients_are_those_of_the_reference(
        self, implementation: Implementation, reference: Implementation
    ) -> None:
        """In float64, within the tolerance that the record states."""
        for case in self.cases():
            found = _computed(implementation, case)
            expected = _computed(reference, case, exact=True)
            errors = [relative_error(a.cpu(), b) for a, b in zip(found, expected, strict=True)]
            assert max(errors) <= implementation.tolerance, (case.use, errors)

    def test_inputs_stay_as_they_were(self, implementation: Implementation) -> None:
        """Whatever it does in place."""
        for case in self.cases():
            parts = _parts(case)
            before = [part.clone() for part in parts]
            case.call(implementation.call, parts)
            assert all(torch.equal(a, b) for a, b in zip(parts, before, strict=True)), case.use

    def test_the_same_inputs_give_the_same_bits(self, implementation: Implementation) -> None:
        """Where the record says that it is deterministic."""
        if implementation.deterministic:
            for case in self.cases():
                once, again = _computed(implementation, case), _computed(implementation, case)
                assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True)), case.use


def _load(offer: Offer) -> Implementation:
    found = load(offer.provider.factory, plugin=offer.plugin, distribution=offer.distribution)
    assert isinstance(found, Implementation), offer
    return found


def _parts(case: OperatorCase) -> list[Tensor]:
    return [part.to(case.use.device, case.use.dtype) for part in case.inputs]


def _computed(implementation: Implementation, case: OperatorCase, *, exact: bool = False) -> list[Tensor]:
    """Results and gradients on the case's device in its dtype, or on the CPU in float64."""
    inputs = case.inputs if exact else [part.to(case.use.device) for part in case.inputs]
    dtype = torch.float64 if exact else case.use.dtype
    return results_and_gradients(lambda *parts: case.call(implementation.call, parts), inputs, dtype)
