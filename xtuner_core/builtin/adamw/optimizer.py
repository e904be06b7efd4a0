"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) through the operator `adamw`, in groups of equal decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from xtuner_core.builtin.adamw.config import AdamWConfig
from xtuner_core.contracts.operator import OperatorTable, Use
from xtuner_core.contracts.optimizer import OptimizedParameter
from xtuner_core.errors import ConfigError, DataError
from xtuner_core.roles import matches

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(slots=True)
class _Group:
    """Parameters that share dtype and weight decay."""

    dtype: torch.dtype
    weight_decay: float
    places: list[int] = field(default_factory=list)
    params: list[Tensor] = field(default_factory=list)
    exp_avgs: list[Tensor] = field(default_factory=list)
    exp_avg_sqs: list[Tensor] = field(default_factory=list)
    call: Callable[..., None] | None = None


class AdamW:
    """Parameters, their moments and the step count.

    :param state_dtype: dtype of both moments.
    :raises ConfigError: a role of `no_decay_roles` is nowhere in the model.
    """

    def __init__(
        self, config: AdamWConfig, parameters: Sequence[OptimizedParameter], *, state_dtype: torch.dtype
    ) -> None:
        _refuse_unmatched(config.no_decay_roles, parameters)
        self.learning_rate = config.learning_rate
        self._config = config
        self._parameters = tuple(parameters)
        self._state_dtype = state_dtype
        self._step = 0
        self._groups = self._grouped()

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
    def step(self, grads: Sequence[Tensor], *, learning_rate: float, grad_scale: float) -> None:
        """One update; the gradients may be overwritten.

        :param grads: in the order of the parameters; brought to float64 for float64 parameters, to float32
            for all others.
        :param learning_rate: of this step, the schedule's factor included.
        :param grad_scale: multiplies every gradient first.
        """
        assert len(grads) == len(self._parameters), (len(grads), len(self._parameters))
        self._step += 1
        config = self._config
        for group in self._groups:
            assert group.call is not None, "bind() comes before step()"
            exact = torch.float64 if group.dtype == torch.float64 else torch.float32
            group.call(
                group.params,
                [grads[place].to(exact) for place in group.places],
                group.exp_avgs,
                group.exp_avg_sqs,
                step=self._step,
                lr=learning_rate,
                beta1=config.beta1,
                beta2=config.beta2,
                eps=config.eps,
                weight_decay=group.weight_decay,
                grad_scale=grad_scale,
            )

    def state_dict(self) -> dict[str, Any]:
        """`{"step": int, "parameters": {name: {"exp_avg": Tensor, "exp_avg_sq": Tensor}}}`, not copied."""
        states: dict[str, dict[str, Tensor]] = {}
        for group in self._groups:
            for place, *moments in zip(group.places, group.exp_avgs, group.exp_avg_sqs, strict=True):
                states[self._parameters[place].name] = dict(zip(_MOMENTS, moments, strict=True))
        return {"step": self._step, "parameters": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a saved state in.

        :raises DataError: it was saved of other parameters.
        """
        own, saved = self.state_dict()["parameters"], state["parameters"]
        differing = sorted(own.keys() ^ saved.keys()) or sorted(
            name for name in own if any(own[name][m].shape != saved[name][m].shape for m in _MOMENTS)
        )
        if differing:
            raise DataError(
                f"the saved optimizer state is of another model: it differs at {differing[0]}"
                + (f" and {len(differing) - 1} more" if len(differing) > 1 else ""),
                fix="resume with the model that was saved",
                plugin="adamw",
            )
        for name, moments in own.items():
            for moment in _MOMENTS:
                moments[moment].copy_(saved[name][moment])
        self._step = int(state["step"])

    def _grouped(self) -> list[_Group]:
        groups: dict[tuple[torch.dtype, float], _Group] = {}
        for place, parameter in enumerate(self._parameters):
            tensor = parameter.tensor
            decay = self._weight_decay(parameter)
            group = groups.setdefault((tensor.dtype, decay), _Group(tensor.dtype, decay))
            group.places.append(place)
            group.params.append(tensor)
            group.exp_avgs.append(torch.zeros_like(tensor, dtype=self._state_dtype, requires_grad=False))
            group.exp_avg_sqs.append(torch.zeros_like(tensor, dtype=self._state_dtype, requires_grad=False))
        return list(groups.values())

    def _weight_decay(self, parameter: OptimizedParameter) -> float:
        spared = any(matches(parameter.role, role) for role in self._config.no_decay_roles)
        return 0.0 if spared or parameter.tensor.dim() < 2 else self._config.weight_decay


def _use_name(dtype: torch.dtype) -> str:
    return f"adamw.{str(dtype).removeprefix('torch.')}"


def _refuse_unmatched(roles: Sequence[str], parameters: Sequence[OptimizedParameter]) -> None:
    for role in roles:
        if not any(matches(parameter.role, role) for parameter in parameters):
            there = ", ".join(sorted({parameter.role for parameter in parameters}))
            raise ConfigError(
                f"optimizer.no_decay_roles names {role!r}, and no parameter of this model has that role",
                fix=f"choose among {there}",
                plugin="adamw",
            )


def build(config: AdamWConfig, parameters: Sequence[OptimizedParameter], *, state_dtype: torch.dtype) -> AdamW:
    """Build the optimizer of `config`."""
    return AdamW(config, parameters, state_dtype=state_dtype)
