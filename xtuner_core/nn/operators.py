"""OperatorModule: a module that calls operators and keeps the implementations that the run bound."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from xtuner_core.contracts.operator import OperatorTable, Use


class OperatorModule(nn.Module, ABC):
    """States its uses from its configuration and calls what was bound to them.

    A copy (`copy.deepcopy`) stays bound: implementations are functions, which are copied by reference.
    """

    def __init__(self) -> None:
        super().__init__()
        self._operators: dict[str, Callable[..., Any]] = {}

    @abstractmethod
    def uses(self, *, device: str, dtype: torch.dtype) -> Mapping[str, Use]:
        """What the module will call, by a name of its own.

        :param device: torch device type that it will run on.
        :param dtype: compute dtype.
        """

    def bind(self, table: OperatorTable, *, device: str, dtype: torch.dtype) -> None:
        """Keep the implementations of the module's uses.

        :raises KeyError: the table does not bind one of them.
        """
        self._operators = {name: table[use] for name, use in self.uses(device=device, dtype=dtype).items()}

    def operator(self, name: str) -> Callable[..., Any]:
        """The implementation bound to the use of that name."""
        assert name in self._operators, (
            f"{type(self).__name__} calls the operator {name!r}; bind() gave it {[*self._operators]}"
        )
        return self._operators[name]
