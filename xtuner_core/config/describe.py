"""Configuration dataclasses as data: fields with types, defaults and the docstrings that stand under them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from typing import Any, get_args, get_type_hints

from xtuner_core.config.pick import pick_fields

REQUIRED = "???"
"""Default of a field that a user has to give (OmegaConf's word for it)."""


def field_docs(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass and of its bases; fields without one are absent."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if is_dataclass(base):
            docs |= _docs_of(base)
    return docs


def _docs_of(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # made at run time: there is no source to read
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs: dict[str, str] = {}
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = inspect.cleandoc(text)
    return docs


def describe(cls: type) -> list[dict[str, Any]]:
    """Every field: name, type, default, documentation, and the slot where it is a pick."""
    docs, hints, picks = field_docs(cls), get_type_hints(cls), pick_fields(cls)
    return [
        {
            "name": item.name,
            "type": _type_name(hints[item.name]),
            "default": _default(item),
            "doc": docs.get(item.name, ""),
            "pick": picks[item.name][0] if item.name in picks else None,
        }
        for item in fields(cls)
    ]


def json_schema(cls: type) -> dict[str, Any]:
    """JSON schema of a configuration dataclass, with the docstrings as descriptions."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(cls).json_schema()
    for part, dataclass in _parts(cls, schema):
        part["additionalProperties"] = False
        for name, text in field_docs(dataclass).items():
            if name in part.get("properties", {}):
                part["properties"][name]["description"] = text
        for property_ in part.get("properties", {}).values():
            if property_.get("default") == REQUIRED:
                del property_["default"]
    return schema


def nested_dataclasses(cls: type) -> Iterator[type]:
    """Every dataclass that the fields of one hold, however deep, in lists and mappings too."""
    waiting: list[Any] = list(get_type_hints(cls).values())
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and is_dataclass(kind):
            yield kind
            waiting += get_type_hints(kind).values()
        waiting += get_args(kind)


def _parts(cls: type, schema: dict[str, Any]) -> list[tuple[dict[str, Any], type]]:
    """The schema of a dataclass and of those nested in it."""
    definitions = schema.get("$defs", {})
    inner = [(definitions[k.__name__], k) for k in nested_dataclasses(cls) if k.__name__ in definitions]
    return [(schema, cls), *inner]


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _default(item: Any) -> Any:
    if item.default is not MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not MISSING else None
