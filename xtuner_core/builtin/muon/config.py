"""Configuration of the optimizer muon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class MuonConfig:
    """Orthogonalised momentum for matrices, AdamW for everything else."""

    learning_rate: float = 3e-4
    """Peak learning rate of the matrices; the schedule multiplies it. With `adjust: match_rms` that of AdamW serves."""
    weight_decay: float = 0.1
    """Decoupled decay, of both parts; a step shrinks a weight by this times its learning rate. Vectors, scalars and
    the role `norm` have none unless a rule of `parameters` says so."""
    momentum: float = 0.95
    """Decay of the momentum."""
    nesterov: bool = True
    """Whether the gradient is added to the momentum once more before it is orthogonalised."""
    adjust: Literal["match_rms", "original", "spectral"] = "match_rms"
    """What multiplies the orthogonal matrix of shape [fan_out, fan_in]. `match_rms`: 0.2 sqrt(max(fan_out, fan_in)),
    so that an entry moves as far as with AdamW (arXiv 2502.16982); `original`: sqrt(max(1, fan_out / fan_in)) (Jordan
    et al. 2024); `spectral`: sqrt(fan_out / fan_in) (arXiv 2310.17813)."""
    newton_schulz_steps: int = 5
    """Iterations that bring the singular values near 1."""
    newton_schulz_dtype: Literal["state", "float64", "float32", "bfloat16"] = "state"
    """What the iteration computes in: `state` is the precision's dtype of optimizer states; `bfloat16` is usual on
    GPUs and enough."""
    eps: float = 1e-7
    """Least norm that a matrix is divided by before the iteration."""
    roles: list[str] | None = None
    """Roles whose matrices are orthogonalised; null takes every role but those of `adamw_roles`."""
    adamw_roles: list[str] | None = None
    """Roles that AdamW updates, which count more than `roles`; null takes `embed`, `head`, `norm` and `moe.router`.
    Whatever has not two dims, or three as a stack of matrices, is AdamW's too."""
    adamw_learning_rate: float | None = None
    """Peak learning rate of the AdamW part; null takes `learning_rate`."""
    adamw_beta1: float = 0.9
    """Decay of the first moment of the AdamW part."""
    adamw_beta2: float = 0.95
    """Decay of the second moment of the AdamW part."""
    adamw_eps: float = 1e-8
    """Added to the root of the second moment of the AdamW part."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "eps", "adamw_eps", "adamw_learning_rate"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, not {value}")
        for name in ("momentum", "adamw_beta1", "adamw_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if self.newton_schulz_steps < 1:
            raise ValueError(f"newton_schulz_steps must be at least 1, not {self.newton_schulz_steps}")
        if self.adamw_learning_rate and not self.learning_rate:
            raise ValueError("learning_rate must be positive where adamw_learning_rate is; use optimizer adamw instead")
