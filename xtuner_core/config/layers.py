"""Where values come from: recipes with their line numbers, `key=value` of the command line, mappings of a caller."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from xtuner_core.errors import ConfigError

Key = tuple[str, ...]
"""A configuration key in its parts."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One value given to one key, and who gave it."""

    path: Key
    value: Any
    origin: str
    """`recipe.yaml:12`, `command line`, `preset 30b-a3b of qwen3_moe` …"""

    @property
    def key(self) -> str:
        """The key as a person writes it."""
        return ".".join(self.path)


Layer = list[Assignment]


PLUGINS = "plugins"
"""Key of the plugins that a recipe activates, and of their settings."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: `1e-3` is a number."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def read_recipe(text: str, label: str) -> Layer:
    """Every leaf of a YAML mapping, with its line.

    :param label: how the file is called in messages.
    :raises ConfigError: it is no YAML, no mapping, or a key stands in it twice.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            return list(_leaves(node, (), label, loader))
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{label} is no valid YAML: {' '.join(str(error).split())}", fix="repair the file") from error
    if node is not None:
        raise ConfigError(f"{label} holds no mapping of keys to values", fix="write key: value lines")
    return []


def _leaves(node: yaml.MappingNode, path: Key, label: str, loader: _Loader) -> Iterator[Assignment]:
    seen: dict[str, int] = {}
    for key_node, value in node.value:
        key, line = str(loader.construct_object(key_node)), key_node.start_mark.line + 1
        if key in seen:
            message = f"{label}:{line}: the key {'.'.join((*path, key))} stands already in line {seen[key]}"
            raise ConfigError(message, fix="keep one of them")
        seen[key] = line
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _leaves(value, (*path, key), label, loader)
        else:
            yield Assignment((*path, key), loader.construct_object(value, deep=True), f"{label}:{line}")


def parse_overrides(arguments: Sequence[str], origin: str = "command line") -> Layer:
    """`key=value` arguments; values are YAML.

    :raises ConfigError: an argument has no `=`, or its value is no YAML.
    """
    layer: Layer = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"{argument!r} is no key=value", fix="write key=value, or the path of a .yaml recipe first"
            )
        try:
            value = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:
            message = f"the value of {argument!r} is no valid YAML: {' '.join(str(error).split())}"
            raise ConfigError(message, fix="quote it: key='\"text\"'") from error
        layer += flatten(value, tuple(key.split(".")), origin)
    return layer


def flatten(value: Any, path: Key, origin: str) -> Layer:
    """Leaves of nested mappings, whose keys may be dotted; an empty mapping is a leaf."""
    if isinstance(value, Mapping) and value:
        return [leaf for key, item in value.items() for leaf in flatten(item, (*path, *str(key).split(".")), origin)]
    return [Assignment(path, value, origin)] if path else []


def read_recipe_file(path: Path) -> Layer:
    """A recipe from disk.

    :raises ConfigError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error}") from error
    return read_recipe(text, str(path))


def listed_plugins(layer: Layer) -> list[str]:
    """Plugins that a layer activates, `plugins: [a, b]`; the list is taken out.

    :raises ConfigError: it is no list of names.
    """
    listed = [a for a in layer if a.path == (PLUGINS,)]
    layer[:] = [a for a in layer if a.path != (PLUGINS,)]
    names: list[str] = []
    for assignment in listed:
        value = [assignment.value] if isinstance(assignment.value, str) else assignment.value
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ConfigError(f"plugins = {assignment.value!r} ({assignment.origin}) is no list of names")
        names += value
    return names
