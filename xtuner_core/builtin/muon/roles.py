"""Which parameters are orthogonalised and which go to AdamW."""

from __future__ import annotations

from collections.abc import Sequence

from xtuner_core.builtin.muon.config import MuonConfig
from xtuner_core.contracts.optimizer import OptimizedParameter
from xtuner_core.errors import ConfigError
from xtuner_core.roles import matches

ADAMW_ROLES = ("embed", "head", "norm", "moe.router")
"""Where the configuration names none. Embedding, head and vectors: Jordan et al. 2024; Liu et al. 2025, arXiv
2502.16982, section 2.1. The router: each of its rows scores one expert by itself, as the head's do."""


def orthogonal(config: MuonConfig, parameters: Sequence[OptimizedParameter]) -> list[bool]:
    """Say for each parameter whether it is orthogonalised.

    :raises ConfigError: a role of the configuration is nowhere in the model, or nothing is left to orthogonalise.
    """
    there = sorted({parameter.role for parameter in parameters})
    for key in ("roles", "adamw_roles"):
        for role in getattr(config, key) or ():
            if not any(matches(each, role) for each in there):
                raise ConfigError(
                    f"optimizer.{key} names {role!r}, and nothing that this run trains has that role",
                    fix=f"choose among {', '.join(there)}",
                    plugin="muon",
                )
    chosen = [_is_orthogonal(config, parameter) for parameter in parameters]
    if not any(chosen):
        raise ConfigError(
            f"optimizer muon finds no matrix to orthogonalise among what this run trains ({', '.join(there)})",
            fix="change optimizer.roles or optimizer.adamw_roles, or use optimizer=adamw",
            plugin="muon",
        )
    return chosen


def _is_orthogonal(config: MuonConfig, parameter: OptimizedParameter) -> bool:
    if parameter.tensor.dim() not in (2, 3):
        return False
    spared = ADAMW_ROLES if config.adamw_roles is None else config.adamw_roles
    if any(matches(parameter.role, role) for role in spared):
        return False
    return config.roles is None or any(matches(parameter.role, role) for role in config.roles)
