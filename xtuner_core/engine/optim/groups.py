"""What the run's rules and an optimizer's defaults come to for each parameter."""

from __future__ import annotations

from collections.abc import Iterable

from xtuner_core.contracts.optimizer import OptimizedParameter
from xtuner_core.roles import matches


def weight_decay(parameter: OptimizedParameter, usual: float) -> float:
    """Take the rules' decay, else none for vectors, scalars and normalisation, else the usual one."""
    if parameter.weight_decay is not None:
        return parameter.weight_decay
    return 0.0 if parameter.tensor.dim() < 2 or matches(parameter.role, "norm") else usual


def group_rates(parameters: Iterable[OptimizedParameter], *, factor: float = 1.0, name: str = "") -> dict[str, float]:
    """Name the learning rates of parameters that are not the step's (`Optimizer.rates`).

    :param factor: the optimizer's own, for all of these parameters, beside that of the rules.
    :param name: of these parameters among the optimizer's, where it has several kinds.
    """
    rates: dict[str, float] = {}
    for parameter in parameters:
        rate = factor * parameter.learning_rate_factor
        if rate != 1:
            rates[".".join(filter(None, (name, parameter.group)))] = rate
    return rates
