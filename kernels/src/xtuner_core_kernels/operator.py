"""The two records that describe an operator: what a module will ask of it, and who can answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Option: TypeAlias = bool | int | float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a module will ask of an operator, known from its configuration before a tensor exists.

    Attributes:
        operator: the operator's name, that of its folder: ``"attention"``.
        device: the torch device type the module runs on.
        dtype: the compute dtype of the operator's inputs.
        sizes: (name, size) pairs in order of name, such as ``(("head_dim", 128), ("heads", 32))``.
        options: (name, value) pairs in order of name, such as ``(("causal", True), ("window", None))``.
    """

    operator: str
    device: str
    dtype: torch.dtype
    sizes: tuple[tuple[str, int], ...] = ()
    options: tuple[tuple[str, Option], ...] = ()

    @classmethod
    def of(
        cls,
        operator: str,
        device: str,
        dtype: torch.dtype,
        sizes: Mapping[str, int] | None = None,
        options: Mapping[str, Option] | None = None,
    ) -> Use:
        """The same record from mappings, whose order does not matter."""
        return cls(
            operator=operator,
            device=device,
            dtype=dtype,
            sizes=tuple(sorted((sizes or {}).items())),
            options=tuple(sorted((options or {}).items())),
        )

    def size(self, name: str) -> int:
        """The size of that name; ``KeyError`` where the use does not state it."""
        return dict(self.sizes)[name]

    def option(self, name: str, default: Option = None) -> Option:
        """The option of that name, or ``default`` where the use does not state it."""
        return dict(self.options).get(name, default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """One way to compute an operator.

    Attributes:
        operator: the operator's name, that of its folder.
        name: the implementation's name, unique within the operator.
        call: the function; its signature is the operator's, documented in the folder's ``reference.py``.
        supports: ``None`` for a use it can serve, otherwise one sentence that says why not.
        preference: of those that support a use, the one with the highest preference is bound; a reference has 0.
        deterministic: whether the same inputs give the same bits on the same hardware.
        tolerance: bound on ``|a - b| / |b|`` (Euclidean norms), for results and gradients alike, where ``a`` is
            computed in float32 and ``b`` by the reference in float64.
    """

    operator: str
    name: str
    call: Callable[..., Any]
    supports: Callable[[Use], str | None]
    tolerance: float
    preference: int = 0
    deterministic: bool = True
