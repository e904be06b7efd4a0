"""The schema of a run: the core's own dataclass and one of each pick, mounted under its key; values checked into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, AnyNode, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xtuner_core.config.layers import PLUGINS, Assignment, Key
from xtuner_core.config.pick import pick_fields
from xtuner_core.config.root import CoreConfig
from xtuner_core.errors import ContractError
from xtuner_core.records import MANY_SLOTS, SLOTS, Problem

ROOT: Key = ()
OPERATOR = "operator"


class Schema:
    """Sections by key, each a dataclass with an owner, and the values that were given to them.

    :param sections: key to (dataclass or None where the offer has no configuration, owner as a person reads it).
    :param inactive: installed plugins that are not active, for the message about their configuration.
    """

    def __init__(self, sections: Mapping[Key, tuple[type | None, str]], inactive: Iterable[str]) -> None:
        self._owners = {ROOT: "xtuner-core", **{key: owner for key, (_, owner) in sections.items()}}
        self._classes = {ROOT: CoreConfig, **{key: cls for key, (cls, _) in sections.items()}}
        self._nodes: dict[Key, DictConfig] = {
            key: _structured(cls, self._owners[key]) for key, cls in self._classes.items() if cls is not None
        }
        self._pins: dict[str, str] = {}
        self._inactive = frozenset(inactive)
        self.origins: dict[str, str] = {}

    # ── giving values ──────────────────────────────────────────────────────────────────────────────────────────

    def assign(self, assignment: Assignment) -> Problem | None:
        """Give one value to one key; the last one counts."""
        if assignment.path[0] == OPERATOR:
            return self._pin(assignment)
        section = self._section(assignment.path)
        rest = assignment.path[len(section) :]
        if section not in self._nodes or not rest:
            return self._stray(assignment, section)
        if section == ROOT and rest[0] not in {item.name for item in fields(CoreConfig)}:
            return self._unknown_root(assignment)
        if len(rest) > 1 and rest[0] in self._picks(section):
            return self._not_picked(assignment, ".".join((*section, rest[0])))
        unknown = _unknown_key(self._nodes[section], rest)
        if unknown is not None:
            return self._unknown(assignment, section, *unknown)
        try:
            OmegaConf.update(self._nodes[section], ".".join(rest), assignment.value)
        except OmegaConfBaseException as error:
            text = str(error).splitlines()[0]
            message = f"{assignment.key} = {assignment.value!r} ({assignment.origin}): {text}"
            return Problem(message=message, fix=self._owned(section), code="wrong_type", key=assignment.key)
        self.origins[assignment.key] = assignment.origin
        return None

    def _picks(self, section: Key) -> Iterable[str]:
        """Fields of a section that are picks of their own."""
        cls = self._classes[section]
        return pick_fields(cls) if cls is not None else ()

    def _section(self, path: Key) -> Key:
        return max((key for key in self._owners if path[: len(key)] == key), key=len)

    def _owned(self, section: Key) -> str:
        return f"the section {'.'.join(section) or 'at the root'} belongs to {self._owners[section]}"

    def _pin(self, assignment: Assignment) -> Problem | None:
        if len(assignment.path) != 2 or not isinstance(assignment.value, str):
            message = f"{assignment.key} = {assignment.value!r} ({assignment.origin}) pins no implementation"
            return Problem(
                message=message, fix="write operator.NAME=IMPLEMENTATION", code="wrong_type", key=assignment.key
            )
        self._pins[assignment.path[1]] = assignment.value
        self.origins[assignment.key] = assignment.origin
        return None

    # ── refusing keys ──────────────────────────────────────────────────────────────────────────────────────────

    def _unknown(self, assignment: Assignment, section: Key, bad: str, known: Iterable[str]) -> Problem:
        near = get_close_matches(bad, list(known), n=1)
        message = f"there is no key {assignment.key} ({assignment.origin}); {self._owned(section)}"
        keys = f"its keys are {', '.join(known)}" if known else f"{'.'.join(assignment.path[:-1])} holds one value"
        fix = f"did you mean {near[0]!r}?" if near else keys
        return Problem(message=message, fix=fix, code="unknown_key", key=assignment.key)

    def _unknown_root(self, assignment: Assignment) -> Problem:
        first = assignment.path[0]
        if first in SLOTS:
            return self._not_picked(assignment, first)
        if first == PLUGINS:
            return self._plugin_settings(assignment)
        known = [item.name for item in fields(CoreConfig)] + list(SLOTS) + [PLUGINS]
        return self._unknown(assignment, ROOT, first, known)

    def _not_picked(self, assignment: Assignment, pick: str) -> Problem:
        message = f"{assignment.key} ({assignment.origin}) configures {pick}, for which nothing is picked"
        return Problem(message=message, fix=f"write {pick}=NAME", code="not_picked", key=assignment.key)

    def _plugin_settings(self, assignment: Assignment) -> Problem:
        name = assignment.path[1] if len(assignment.path) > 1 else ""
        where = f"{assignment.key} ({assignment.origin})"
        if name in self._inactive:
            message, fix = f"{where} configures the plugin {name!r}, which is not active", f"add --plugins {name}"
        else:
            near = get_close_matches(name, self._inactive, n=1)
            message = f"{where} configures {name!r}, which is no active plugin with settings of its own"
            fix = f"did you mean {near[0]!r}?" if near else "take it out"
        return Problem(message=message, fix=fix, code="inactive_plugin", key=assignment.key, plugins=(name,))

    def _stray(self, assignment: Assignment, section: Key) -> Problem | None:
        if assignment.path == section and assignment.value in ({}, None):
            return None
        if assignment.path == section:
            message = f"{assignment.key} = {assignment.value!r} ({assignment.origin}) is no mapping"
            return Problem(message=message, fix=self._owned(section), code="wrong_type", key=assignment.key)
        message = f"{assignment.key} ({assignment.origin}): {self._owners[section]} has no configuration"
        return Problem(message=message, fix="take it out", code="unknown_key", key=assignment.key)

    # ── the outcome ────────────────────────────────────────────────────────────────────────────────────────────

    def resolve(self) -> tuple[dict[str, Any], list[Problem]]:
        """The whole configuration as plain data, interpolations resolved, each section checked by its dataclass."""
        tree = OmegaConf.create({})
        for key in sorted(self._owners, key=len):
            node = self._nodes.get(key, OmegaConf.create({}))
            OmegaConf.update(tree, ".".join(key), node, force_add=True) if key else tree.merge_with(
                OmegaConf.to_container(node)
            )
        try:
            values = _plain(OmegaConf.to_container(tree, resolve=True, enum_to_str=True))
        except OmegaConfBaseException as error:
            fix = "write a key that is there, or escape the value: \\${…}"
            return {}, [Problem(message=str(error).splitlines()[0], fix=fix, code="interpolation")]
        self._empty_picks(values)
        if self._pins:
            values[OPERATOR] = dict(self._pins)
        problems = [p for key, cls in self._classes.items() if cls is not None for p in self._check(key, cls, values)]
        return values, problems

    def _empty_picks(self, values: dict[str, Any]) -> None:
        """A field that is a pick holds nothing where nothing is picked, whatever its default names."""
        for section in self._nodes:
            for name in self._picks(section):
                if (*section, name) not in self._owners:
                    section_of(values, section)[name] = None

    def _check(self, key: Key, cls: type, values: Any) -> list[Problem]:
        given, path = section_of(values, key), ".".join(key)
        missing = [".".join((*key, name)) for name, value in given.items() if value == MISSING]
        if missing:
            fix = f"write {' '.join(f'{name}=VALUE' for name in missing)}; {self._owned(key)}"
            message = f"{', '.join(missing)}: a value is required, and none is given"
            return [Problem(message=message, fix=fix, code="missing_value", key=missing[0])]
        try:
            instantiate(cls, given)
        except Exception as error:  # whatever a plugin's __post_init__ raises
            text = next(iter(str(error).splitlines()), type(error).__name__)
            where = path or "the run's own settings"
            return [Problem(message=f"{where}: {text}", fix=self._owned(key), code="wrong_value", key=path)]
        return []


def instantiate(cls: type, values: Mapping[str, Any]) -> Any:
    """The dataclass of a section from plain data.

    :raises ValueError: the dataclass refuses the values.
    """
    nested = pick_fields(cls)
    known = {item.name for item in fields(cls)} - nested.keys()
    node = OmegaConf.merge(_writable(OmegaConf.structured(cls)), {k: v for k, v in values.items() if k in known})
    made = OmegaConf.to_object(node)
    for name in nested:
        object.__setattr__(made, name, values.get(name))
    return made


def section_of(config: Mapping[str, Any], path: str | Key) -> Any:
    """The part of a resolved configuration under a key."""
    for part in path.split(".") if isinstance(path, str) else path:
        config = config[part]
    return config


def _structured(cls: type, owner: str) -> DictConfig:
    try:
        return cast(DictConfig, _writable(OmegaConf.structured(cls)))
    except Exception as error:
        text = next(iter(str(error).splitlines()), type(error).__name__)
        message = f"the configuration {cls.__qualname__} of {owner} cannot be used: {text}"
        raise ContractError(message, fix="its fields take plain types: numbers, strings, lists, mappings") from error


def _writable(node: Any) -> Any:
    """A frozen dataclass is frozen once it is made, not while its values are gathered."""
    if isinstance(node, DictConfig):
        OmegaConf.set_readonly(node, False)
        for name in node if is_dataclass(OmegaConf.get_type(node)) else ():
            _writable(node._get_node(name))
    return node


def _plain(value: Any) -> Any:
    """What JSON holds: paths as text, and keys that are text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _unknown_key(node: Any, rest: Key) -> tuple[str, list[str]] | None:
    """The first part of a key that its structured node has not, and the keys that it has."""
    for part in rest:
        if not isinstance(node, DictConfig | AnyNode):
            return part, []
        if not isinstance(node, DictConfig) or not is_dataclass(OmegaConf.get_type(node)):
            return None
        known = [str(key) for key in node]
        if part not in known:
            return part, known
        node = node._get_node(part)
    return None


def leaf_origins(config: Mapping[str, Any], given: Mapping[str, str], path: str = "") -> dict[str, str]:
    """Origin of every leaf: what was given, else `default`."""
    origins: dict[str, str] = {}
    for name, value in config.items():
        key = f"{path}.{name}" if path else name
        if isinstance(value, Mapping) and value and key not in given:
            origins |= leaf_origins(value, given, key)
        else:
            origins[key] = given.get(key, "default")
    return origins


__all__ = ["MANY_SLOTS", "Schema", "instantiate", "leaf_origins", "section_of"]
