"""Bind every use of an operator to one implementation, and say why not to the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias

import torch

from xtuner_core.contracts.operator import Implementation, OperatorTable, OperatorUser, Use
from xtuner_core.errors import ComposeError, ContractError
from xtuner_core.records import Problem

Verdicts: TypeAlias = Sequence[tuple[str, Implementation, str | None]]
"""Implementations of an operator, each with its plugin and the reason why it cannot serve a use, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """One use of a run, what serves it, and why nothing else does: plain data that `doctor` shows."""

    operator: str
    implementation: str
    plugin: str
    users: int
    """Modules and components that state this use."""
    device: str
    dtype: str
    sizes: Mapping[str, int]
    options: Mapping[str, Any]
    others: Mapping[str, str]
    """Every other implementation by name, with the reason why it was passed over."""

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


class OperatorBinder:
    """Chooses, of the implementations that support a use, the one with the highest preference.

    :param implementations: what the active plugins offer, each with its plugin's name.
    :param device: torch device type of the run.
    :param pins: operator to the name of the implementation that must serve all its uses.
    :param deterministic: pass over implementations that are not deterministic.
    :raises ComposeError: a pin names an operator or an implementation that nobody offers.
    """

    def __init__(
        self,
        implementations: Sequence[tuple[str, Implementation]],
        *,
        device: str,
        pins: Mapping[str, str] | None = None,
        deterministic: bool = False,
    ) -> None:
        self._implementations = tuple(implementations)
        self._device = device
        self._pins = dict(pins or {})
        self._deterministic = deterministic
        self._rows: list[OperatorRow] = []
        problems = [problem for item in self._pins.items() if (problem := self._unknown_pin(*item))]
        if problems:
            raise ComposeError(problems)

    @property
    def rows(self) -> tuple[OperatorRow, ...]:
        """The uses bound so far, a row each."""
        return tuple(self._rows)

    def bind(self, users: Iterable[object], *, dtype: torch.dtype) -> OperatorTable:
        """Bind the uses of those objects that are `OperatorUser`s, and hand each of them the table.

        :param dtype: compute dtype of the users (of an optimizer the dtype that it updates).
        :raises ComposeError: some uses have no implementation; carries a problem for each.
        """
        callers = [user for user in users if isinstance(user, OperatorUser)]
        counts = Counter(use for user in callers for use in set(self._uses(user, dtype)))
        bound: dict[Use, Implementation] = {}
        problems: list[Problem] = []
        for use, count in counts.items():
            verdicts = self._verdicts(use)
            fit = [(plugin, item) for plugin, item, reason in verdicts if reason is None]
            if not fit:
                problems.append(_unserved(use, verdicts, self._pins.get(use.operator)))
                continue
            plugin, bound[use] = max(fit, key=lambda pair: pair[1].preference)
            self._rows.append(_row(use, plugin, bound[use], count, verdicts))
        if problems:
            raise ComposeError(problems)
        table = OperatorTable(bound)
        for user in callers:
            user.bind(table, device=self._device, dtype=dtype)
        return table

    def refuse_idle_pins(self) -> None:
        """Refuse pins of operators that nothing bound so far uses; call it once everything is bound.

        :raises ComposeError: with a problem for each.
        """
        used = sorted({row.operator for row in self._rows})
        idle = [operator for operator in self._pins if operator not in used]
        if idle:
            raise ComposeError([_idle_pin(operator, used) for operator in idle])

    def _uses(self, user: OperatorUser, dtype: torch.dtype) -> Iterable[Use]:
        return user.uses(device=self._device, dtype=dtype).values()

    def _verdicts(self, use: Use) -> Verdicts:
        return [(plugin, item, self._refusal(plugin, item, use)) for plugin, item in self._of(use.operator)]

    def _of(self, operator: str) -> list[tuple[str, Implementation]]:
        return [(plugin, item) for plugin, item in self._implementations if item.operator == operator]

    def _refusal(self, plugin: str, implementation: Implementation, use: Use) -> str | None:
        pin = self._pins.get(use.operator, implementation.name)
        if pin != implementation.name:
            return f"operator.{use.operator}={pin} is pinned"
        try:
            reason = implementation.supports(use)
        except Exception as error:
            message = f"{implementation.name!r} of operator {use.operator!r} fails in supports: {error!r}"
            raise ContractError(message, fix=f"update plugin {plugin!r}", plugin=plugin) from error
        if reason is None and self._deterministic and not implementation.deterministic:
            return "is not deterministic, and this run is (deterministic: true)"
        return reason

    def _unknown_pin(self, operator: str, pin: str) -> Problem | None:
        key = f"operator.{operator}"
        names = [item.name for _, item in self._of(operator)]
        if pin in names:
            return None
        if not names:
            known = sorted({item.operator for _, item in self._implementations})
            return Problem(
                message=f"no active plugin offers the operator {operator!r}",
                fix=_nearest(operator, known),
                code="unknown_operator",
                key=key,
            )
        return Problem(
            message=f"the operator {operator!r} has no implementation {pin!r}",
            fix=_nearest(pin, names),
            code="unknown_operator",
            key=key,
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"write {near[0]!r}" if near else f"choose among {', '.join(known)}"


def _idle_pin(operator: str, used: Sequence[str]) -> Problem:
    return Problem(
        message=f"operator.{operator} is pinned, but nothing in this run uses that operator",
        fix=f"take the pin away; this run uses {', '.join(used)}",
        code="idle_pin",
        key=f"operator.{operator}",
    )


def _row(use: Use, plugin: str, chosen: Implementation, count: int, verdicts: Verdicts) -> OperatorRow:
    return OperatorRow(
        operator=use.operator,
        implementation=chosen.name,
        plugin=plugin,
        users=count,
        device=use.device,
        dtype=_word(use.dtype),
        sizes=dict(use.sizes),
        options=dict(use.options),
        others={item.name: why or "lower preference" for _, item, why in verdicts if item is not chosen},
    )


def _unserved(use: Use, verdicts: Verdicts, pin: str | None) -> Problem:
    reasons = "; ".join(f"{item.name} of plugin {plugin!r} {reason}" for plugin, item, reason in verdicts)
    settings = ", ".join(f"{name}={value}" for name, value in (*use.sizes, *use.options))
    asked = f"{use.operator!r} on {use.device} in {_word(use.dtype)} with {settings or 'no settings'}"
    return Problem(
        message=f"nothing serves the operator {asked}: {reasons or 'no active plugin offers any'}",
        fix=f"take operator.{use.operator}={pin} away" if pin else "activate a plugin that offers one",
        code="operator",
        key=f"operator.{use.operator}",
        plugins=tuple(plugin for plugin, _, _ in verdicts),
    )


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
