"""Muon: momentum, orthogonalised, for matrices; AdamW for everything else.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), with the weight decay and the scale of Liu et al. 2025
(arXiv 2502.16982). For a matrix W with gradient G, momentum B and learning rate h: B <- mu B + G; U = G + mu B
(Nesterov) or B; W <- W - h (adjust * orthogonalised(U) + decay * W).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from xtuner_core.builtin.muon.config import MuonConfig
from xtuner_core.builtin.muon.direction import ADJUSTMENTS, Direction
from xtuner_core.builtin.muon.roles import orthogonal
from xtuner_core.contracts.operator import OperatorTable, Use
from xtuner_core.contracts.optimizer import OptimizedParameter
from xtuner_core.engine.optim import AdamWUpdate, copy_states, group_rates, weight_decay

_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


class Muon:
    """Parameters, momenta of the matrices, the AdamW part, and the step count.

    :param state_dtype: of the momenta, and of AdamW's moments.
    :raises ConfigError: a role of the configuration is nowhere in the model, or no parameter is a matrix.
    """

    def __init__(
        self, config: MuonConfig, parameters: Sequence[OptimizedParameter], *, state_dtype: torch.dtype
    ) -> None:
        chosen = orthogonal(config, parameters)
        self.learning_rate = config.learning_rate
        self._config = config
        self._step = 0
        self._places = [place for place, is_matrix in enumerate(chosen) if is_matrix]
        self._other_places = [place for place, is_matrix in enumerate(chosen) if not is_matrix]
        self._matrices = [parameters[place] for place in self._places]
        self._momenta = [torch.zeros_like(m.tensor, dtype=state_dtype, requires_grad=False) for m in self._matrices]
        self._direction = Direction(
            steps=config.newton_schulz_steps,
            eps=config.eps,
            dtype=_DTYPES.get(config.newton_schulz_dtype, state_dtype),
            adjust=ADJUSTMENTS[config.adjust],
        )
        others = [parameters[place] for place in self._other_places]
        self._adamw = AdamWUpdate(
            others,
            beta1=config.adamw_beta1,
            beta2=config.adamw_beta2,
            eps=config.adamw_eps,
            weight_decay=config.weight_decay,
            state_dtype=state_dtype,
        )
        own = config.adamw_learning_rate
        self._adamw_rate = 1.0 if own is None or own == config.learning_rate else own / config.learning_rate
        self.rates = {
            **group_rates(self._matrices),
            **group_rates(others, factor=self._adamw_rate, name="adamw" if self._adamw_rate != 1 else ""),
        }

    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """Those of the AdamW part."""
        return self._adamw.uses(device=device, dtype=dtype)

    def bind(self, table: OperatorTable, *, device: str, dtype: torch.dtype) -> None:
        """Keep the implementations that `table` binds to the uses."""
        self._adamw.bind(table, device=device, dtype=dtype)

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor], *, learning_rate: float, grad_scale: float) -> None:
        """One update; the gradients may be overwritten.

        :param grads: in the order of the parameters.
        :param learning_rate: of this step's matrices, the schedule's factor included.
        :param grad_scale: multiplies every gradient first.
        """
        self._step += 1
        for place, matrix, momentum in zip(self._places, self._matrices, self._momenta, strict=True):
            self._move(matrix, momentum, grads[place], learning_rate * matrix.learning_rate_factor, grad_scale)
        self._adamw.step(
            [grads[place] for place in self._other_places],
            step=self._step,
            learning_rate=learning_rate * self._adamw_rate,
            grad_scale=grad_scale,
        )

    def _move(self, matrix: OptimizedParameter, momentum: Tensor, grad: Tensor, rate: float, scale: float) -> None:
        """One matrix, or stack of them: entry by entry but for `Direction`."""
        tensor, mu = matrix.tensor, self._config.momentum
        exact = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        grad = grad.to(exact) * scale
        moved = momentum.to(exact) * mu + grad
        momentum.copy_(moved)
        update = grad.add_(moved, alpha=mu) if self._config.nesterov else moved
        direction = self._whole_direction(matrix, update)
        decay = weight_decay(matrix, self._config.weight_decay)
        tensor.copy_((tensor.to(exact) * (1 - rate * decay)).sub_(direction, alpha=rate))

    def _whole_direction(self, matrix: OptimizedParameter, update: Tensor) -> Tensor:
        """This rank's part of the direction: matrices that ranks hold parts of are gathered, and cut again."""
        dims = [dim for dim in (update.dim() - 2, update.dim() - 1) if matrix.shards and dim in matrix.shards.divided]
        if matrix.shards is None or not dims:
            return self._direction(update, matrix.matrices)
        whole = self._direction(matrix.shards.gather(update, dims), matrix.matrices)
        return matrix.shards.cut(whole, dims)

    def state_dict(self) -> dict[str, Any]:
        """`{"step": int, "parameters": {name: {"momentum": Tensor} or AdamW's moments}}`, not copied."""
        return {"step": self._step, "parameters": self._states()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a saved state in.

        :raises DataError: it was saved of other parameters, or with other roles orthogonalised.
        """
        copy_states(self._states(), state["parameters"], plugin="muon")
        self._step = int(state["step"])

    def _states(self) -> dict[str, dict[str, Tensor]]:
        pairs = zip(self._matrices, self._momenta, strict=True)
        return {**{matrix.name: {"momentum": momentum} for matrix, momentum in pairs}, **self._adamw.states()}


def build(config: MuonConfig, parameters: Sequence[OptimizedParameter], *, state_dtype: torch.dtype) -> Muon:
    """Build the optimizer of `config`."""
    return Muon(config, parameters, state_dtype=state_dtype)
