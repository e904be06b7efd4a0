"""The run's rules on parameters (`parameters` in the configuration), resolved against a built model.

Rules are read in their order, and of those that match a parameter each setting's last one counts. A parameter that
several modules share (embedding and head, where they are tied) is matched under each of its roles; rules that set it
apart under two of them are refused, because it has one value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from torch import nn

from xtuner_core.config.layer_ranges import LayerRanges
from xtuner_core.config.root import ParameterRule
from xtuner_core.errors import ComposeError
from xtuner_core.nn.roles import iter_roles, parameter_role
from xtuner_core.records import Problem
from xtuner_core.roles import ROLES, matches

LAYER = "layer"
"""The role of whole layers; no parameter has it, all that lie in one are meant."""
Setting = tuple[Any, int]
"""A value, and the number of the rule that gave it."""

SETTINGS = ("learning_rate_factor", "weight_decay", "frozen")


class Place(NamedTuple):
    """Where a parameter is in the model."""

    role: str
    layer: int | None
    in_layer: bool
    """Whether a module of role `layer` holds it."""

    def has(self, role: str) -> bool:
        """Whether a rule for this role is for it, layers aside."""
        return matches(self.role, role) or (role == LAYER and self.in_layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What the rules come to for one parameter."""

    learning_rate_factor: float = 1.0
    weight_decay: float | None = None
    """None leaves it to the optimizer."""
    frozen: bool | None = None
    """None leaves it as the model and its adapters made it."""
    group: str = ""
    """Role and layers of the rule that set the learning rate; empty where none did."""


def resolve(rules: Sequence[ParameterRule], model: nn.Module) -> dict[str, Treatment]:
    """Apply the rules to a model, which may be on the meta device.

    :returns: a treatment for each parameter that a rule matches, by its first name.
    :raises ComposeError: a rule matches nothing, or two set a shared parameter apart; carries every such problem.
    """
    if not rules:
        return {}
    places = _places(model)
    problems = [p for number, rule in enumerate(rules) if (p := _idle(number, rule, places.values()))]
    found: dict[str, Treatment] = {}
    for name, aliases in _shared(model).items():
        settings, conflicts = _settings(rules, {alias: places[alias] for alias in aliases})
        problems += conflicts
        if settings:
            found[name] = _treatment(rules, settings)
    if problems:
        raise ComposeError(problems)
    return found


def freeze(model: nn.Module, treatments: Mapping[str, Treatment]) -> None:
    """Make the parameters differentiable or not, as the rules say; master weights are made afterwards."""
    for name, parameter in model.named_parameters():
        frozen = treatments[name].frozen if name in treatments else None
        if frozen is not None:
            parameter.requires_grad_(not frozen)


def matched(rule: ParameterRule, place: Place) -> bool:
    """Whether a rule is for parameters of this role and layer."""
    if not place.has(rule.role):
        return False
    return rule.layers is None or (place.layer is not None and place.layer in LayerRanges.parse(rule.layers))


def _places(model: nn.Module) -> dict[str, Place]:
    """Of each parameter, under each of its names."""
    within = tuple(f"{item.name}." for item in iter_roles(model) if item.role == LAYER)
    roles = parameter_role(model, aliases=True)
    return {name: Place(role, layer, name.startswith(within)) for name, (role, layer) in roles.items()}


def _shared(model: nn.Module) -> dict[str, list[str]]:
    """All names of each parameter by its first."""
    first: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(first.setdefault(id(parameter), name), []).append(name)
    return names


def _settings(rules: Sequence[ParameterRule], aliases: Mapping[str, Place]) -> tuple[dict[str, Setting], list[Problem]]:
    """What the rules set of one parameter under all of its names."""
    settings: dict[str, Setting] = {}
    problems: list[Problem] = []
    for name in SETTINGS:
        given = {alias: last for alias, place in aliases.items() if (last := _last(rules, place, name)) is not None}
        if len({value for value, _ in given.values()}) > 1:
            problems.append(_conflict(name, given, aliases))
        elif given:
            settings[name] = next(iter(given.values()))
    return settings, problems


def _last(rules: Sequence[ParameterRule], place: Place, name: str) -> Setting | None:
    for number in reversed(range(len(rules))):
        value = getattr(rules[number], name)
        if value is not None and matched(rules[number], place):
            return value, number
    return None


def _treatment(rules: Sequence[ParameterRule], settings: Mapping[str, Setting]) -> Treatment:
    values = {name: value for name, (value, _) in settings.items()}
    if "learning_rate_factor" not in settings:
        return Treatment(**values)
    rule = rules[settings["learning_rate_factor"][1]]
    return Treatment(**values, group=".".join(filter(None, (rule.role, rule.layers))))


def _idle(number: int, rule: ParameterRule, places: Iterable[Place]) -> Problem | None:
    """The refusal of a rule that matches nothing."""
    places = list(places)
    if any(matched(rule, place) for place in places):
        return None
    key, present = f"parameters[{number}]", sorted({place.role for place in places})
    layers = sorted({place.layer for place in places if place.has(rule.role) and place.layer is not None})
    if any(place.has(rule.role) for place in places):
        message = f"{key}: no parameter of role {rule.role!r} lies in the layers {rule.layers}"
        fix = f"it is in the layers {layers[0]} to {layers[-1]}" if layers else "it is in no layer; leave layers out"
        return Problem(message=message, fix=fix, code="idle_rule", key=key)
    near = get_close_matches(rule.role, present, n=1)
    known = rule.role in ROLES
    message = f"{key}: no parameter of this model has the role {rule.role!r}"
    fix = f"write {near[0]!r}" if near and not known else f"choose among {', '.join(present)}"
    return Problem(message=message, fix=fix, code="idle_rule", key=key)


def _conflict(name: str, given: Mapping[str, Setting], aliases: Mapping[str, Place]) -> Problem:
    told = ", ".join(f"parameters[{rule}] sets {value} for {aliases[a].role}" for a, (value, rule) in given.items())
    return Problem(
        message=f"{' and '.join(aliases)} are one parameter, and the rules set its {name} apart: {told}",
        fix="give both the same, or leave one out",
        code="rule_conflict",
        key=f"parameters[{max(rule for _, rule in given.values())}]",
    )
