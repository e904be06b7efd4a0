"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) through the operator `adamw`, over any set of parameters.

Parameters that share dtype, weight decay and learning rate are one call of the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xtuner_core.contracts.operator import OperatorTable, Use
from xtuner_core.contracts.optimizer import OptimizedParameter
from xtuner_core.engine.optim.groups import weight_decay as decay_of

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(slots=True)
class _Group:
    """Parameters that share dtype, weight decay and learning rate."""

    dtype: torch.dtype
    weight_decay: float
    rate: float
    places: list[int] = field(default_factory=list)
    params: list[Tensor] = field(default_factory=list)
    exp_avgs: list[Tensor] = field(default_factory=list)
    exp_avg_sqs: list[Tensor] = field(default_factory=list)
    call: Callable[..., None] | None = None


class AdamWUpdate:
    """Parameters and their moments; an `OperatorUser`. Whoever owns it counts the steps.

    :param weight_decay: where neither a rule nor the kind of parameter says otherwise (`optim.weight_decay`).
    :param state_dtype: of both moments.
    """

    def __init__(
        self,
        parameters: Sequence[OptimizedParameter],
        *,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        state_dtype: torch.dtype,
    ) -> None:
        self._parameters = tuple(parameters)
        self._beta1, self._beta2, self._eps = beta1, beta2, eps
        self._state_dtype = state_dtype
        self._groups = self._grouped(weight_decay)

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """One use of `adamw` for each dtype of the parameters; `dtype` plays no part."""
        del dtype
        options = {"state_dtype": str(self._state_dtype)}
        dtypes = {group.dtype for group in self._groups}
        return {_use_name(each): Use.of("adamw", device=device, dtype=each, options=options) for each in dtypes}

    def bind(self, table: OperatorTable, *, device: str, dtype: torch.dtype) -> None:
        """Keep the implementations that `table` binds to the uses."""
        uses = self.uses(device=device, dtype=dtype)
        for group in self._groups:
            group.call = table[uses[_use_name(group.dtype)]]

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor], *, step: int, learning_rate: float, grad_scale: float) -> None:
        """One update; the gradients may be overwritten.

        :param grads: in the order of the parameters; brought to float64 for float64 parameters, to float32
            for all others.
        :param step: counts from 1.
        :param learning_rate: of this step; each parameter's own factor is applied to it.
        :param grad_scale: multiplies every gradient first.
        """
        assert len(grads) == len(self._parameters), (len(grads), len(self._parameters))
        for group in self._groups:
            assert group.call is not None, "bind() comes before step()"
            exact = torch.float64 if group.dtype == torch.float64 else torch.float32
            group.call(
                group.params,
                [grads[place].to(exact) for place in group.places],
                group.exp_avgs,
                group.exp_avg_sqs,
                step=step,
                lr=learning_rate * group.rate,
                beta1=self._beta1,
                beta2=self._beta2,
                eps=self._eps,
                weight_decay=group.weight_decay,
                grad_scale=grad_scale,
            )

    def states(self) -> dict[str, dict[str, Tensor]]:
        """`{name: {"exp_avg": Tensor, "exp_avg_sq": Tensor}}` in the order of the parameters, not copied."""
        found: dict[str, dict[str, Tensor]] = {}
        for group in self._groups:
            for place, *moments in zip(group.places, group.exp_avgs, group.exp_avg_sqs, strict=True):
                found[self._parameters[place].name] = dict(zip(_MOMENTS, moments, strict=True))
        return {parameter.name: found[parameter.name] for parameter in self._parameters}

    def _grouped(self, usual: float) -> list[_Group]:
        groups: dict[tuple[torch.dtype, float, float], _Group] = {}
        for place, parameter in enumerate(self._parameters):
            tensor = parameter.tensor
            key = (tensor.dtype, decay_of(parameter, usual), parameter.learning_rate_factor)
            group = groups.setdefault(key, _Group(*key))
            group.places.append(place)
            group.params.append(tensor)
            group.exp_avgs.append(torch.zeros_like(tensor, dtype=self._state_dtype, requires_grad=False))
            group.exp_avg_sqs.append(torch.zeros_like(tensor, dtype=self._state_dtype, requires_grad=False))
        return list(groups.values())


def _use_name(dtype: torch.dtype) -> str:
    return f"adamw.{str(dtype).removeprefix('torch.')}"
