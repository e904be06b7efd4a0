"""The optimizer adamw: every parameter by AdamW (`engine.optim.AdamWUpdate`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from xtuner_core.builtin.adamw.config import AdamWConfig
from xtuner_core.contracts.operator import OperatorTable, Use
from xtuner_core.contracts.optimizer import OptimizedParameter
from xtuner_core.engine.optim import AdamWUpdate, copy_states, group_rates


class AdamW:
    """Parameters, their moments and the step count.

    :param state_dtype: dtype of both moments.
    """

    def __init__(
        self, config: AdamWConfig, parameters: Sequence[OptimizedParameter], *, state_dtype: torch.dtype
    ) -> None:
        self.learning_rate = config.learning_rate
        self.rates = group_rates(parameters)
        self._step = 0
        self._update = AdamWUpdate(
            parameters,
            beta1=config.beta1,
            beta2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            state_dtype=state_dtype,
        )

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """One use of `adamw` for each dtype of the parameters."""
        return self._update.uses(device=device, dtype=dtype)

    def bind(self, table: OperatorTable, *, device: str, dtype: torch.dtype) -> None:
        """Keep the implementations that `table` binds to the uses."""
        self._update.bind(table, device=device, dtype=dtype)

    def step(self, grads: Sequence[Tensor], *, learning_rate: float, grad_scale: float) -> None:
        """One update; see `AdamWUpdate.step`.

        :param learning_rate: of this step, the schedule's factor included.
        """
        self._step += 1
        self._update.step(grads, step=self._step, learning_rate=learning_rate, grad_scale=grad_scale)

    def state_dict(self) -> dict[str, Any]:
        """`{"step": int, "parameters": {name: {"exp_avg": Tensor, "exp_avg_sq": Tensor}}}`, not copied."""
        return {"step": self._step, "parameters": self._update.states()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a saved state in.

        :raises DataError: it was saved of other parameters.
        """
        copy_states(self._update.states(), state["parameters"], plugin="adamw")
        self._step = int(state["step"])


def build(config: AdamWConfig, parameters: Sequence[OptimizedParameter], *, state_dtype: torch.dtype) -> AdamW:
    """Build the optimizer of `config`."""
    return AdamW(config, parameters, state_dtype=state_dtype)
