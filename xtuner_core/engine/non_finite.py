"""Steps whose loss or gradient is not finite: where it began, and how many a run bears."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from xtuner_core.config.root import EngineConfig
from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.optimizer import OptimizedParameter
from xtuner_core.errors import RunError


def explain(
    losses: Mapping[str, float],
    grads: Sequence[Tensor],
    parameters: Sequence[OptimizedParameter],
    agree: Callable[[int], int] = int,
) -> str:
    """Say which loss is not finite, else which parameter's gradient was the first.

    Waits for the device once a parameter, so that it is asked only of a step that is skipped anyway.

    :param losses: by name.
    :param grads: in the order of the parameters, which is that of the forward pass.
    :param agree: the largest of a number over all ranks, each of which sees its part of the gradients.
    """
    for name, value in losses.items():
        if not math.isfinite(value):
            return f"the loss {name!r} is {value}"
    # Backward goes from the last parameter to the first, and what is not finite spreads to all that come later.
    unfit = (place for place in reversed(range(len(grads))) if not grads[place].isfinite().all())
    first = agree(next(unfit, -1))
    if first < 0:
        return "the norm of the gradient is not finite although every gradient is: its square is too large"
    parameter = parameters[first]
    return f"the gradient of role {parameter.role!r} is not finite, first in {parameter.name}"


def tolerate(result: StepResult, skipped_in_a_row: int, settings: EngineConfig) -> int:
    """Count steps skipped in a row, the given one included.

    :raises RunError: it was skipped and the settings bear no such step, or not so many.
    """
    if not result.skipped:
        return 0
    count = skipped_in_a_row + 1
    if settings.non_finite == "fail":
        raise RunError(
            f"step {result.step} was not applied: {result.reason}",
            fix="look at the data of that step; engine.non_finite=skip goes on without it",
        )
    if count >= settings.max_skipped:
        raise RunError(
            f"{count} steps in a row were not applied, the last of them step {result.step}: {result.reason}",
            fix="lower the learning rate or look at the data; engine.max_skipped sets how many are borne",
        )
    return count
