"""The contract as data, and its snapshot: `python tools/contract.py` writes `tests/wiring/contract.json`.

A changed contract needs a changed version (`docs/reference/contract-policy.md`); `--unreleased` writes a snapshot of
the same version again, for a version that no release has carried yet.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import xtuner_core
from xtuner_core import api, contracts, hookspecs, nn, records
from xtuner_core.capabilities import CAPABILITIES
from xtuner_core.roles import ROLES

FILE = Path(__file__).parents[1] / "tests" / "wiring" / "contract.json"


def snapshot() -> dict[str, Any]:
    """Everything that a plugin may rely on."""
    hooks = {name: item for name, item in vars(hookspecs).items() if name.startswith("xtuner_")}
    modules = sorted(item.name for item in pkgutil.iter_modules(contracts.__path__))
    return {
        "version": ".".join(map(str, hookspecs.CONTRACT)),
        "hooks": {name: _signature(item) for name, item in hooks.items()},
        "records": {name: _members(item) for name, item in _defined(records) if isinstance(item, type)},
        "contracts": {name: _module(f"{contracts.__name__}.{name}") for name in modules},
        "names": {
            "xtuner_core": sorted(xtuner_core.__all__),
            "xtuner_core.api": sorted(api.__all__),
            "xtuner_core.nn": sorted(nn.__all__),
        },
        "slots": sorted(records.SLOTS),
        "stages": list(records.STAGES),
        "roles": sorted(ROLES),
        "capabilities": sorted(CAPABILITIES),
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, a line each: `contracts.loss.Loss.total: … became …`."""
    mine, theirs = dict(_flat(old, "")), dict(_flat(new, ""))
    keys = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    return [f"{key}: {mine.get(key, 'nothing')} became {theirs.get(key, 'nothing')}" for key in keys]


def refusal(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Why the new contract may not bear its version; empty where it may."""
    found = changes(old, new)
    if not found or old["version"] != new["version"]:
        return ""
    lines = "\n".join(f"- {line}" for line in found)
    return f"the contract changed and its version is still {new['version']}:\n{lines}\nraise CONTRACT in hookspecs.py"


def main(arguments: list[str]) -> int:
    """Write the snapshot."""
    new = snapshot()
    why = refusal(json.loads(FILE.read_text(encoding="utf-8")), new) if FILE.exists() else ""
    if why and "--unreleased" not in arguments:
        print(why, file=sys.stderr)
        return 1
    FILE.write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(FILE)
    return 0


# ── reading the code ───────────────────────────────────────────────────────────────────────────────────────────────


def _defined(module: Any) -> Iterator[tuple[str, Any]]:
    """Public classes and functions that a module itself defines."""
    for name, item in vars(module).items():
        if not name.startswith("_") and getattr(item, "__module__", None) == module.__name__:
            yield name, item


def _module(name: str) -> dict[str, Any]:
    found = _defined(importlib.import_module(name))
    return {item: _members(value) if isinstance(value, type) else _signature(value) for item, value in found}


def _members(cls: type) -> dict[str, str]:
    """Fields with their defaults, methods with their signatures."""
    if is_dataclass(cls):
        members = {item.name: f"{item.type}{_default(item)}" for item in fields(cls)}
    else:
        members = {name: str(kind) for name, kind in inspect.get_annotations(cls).items()}
    for name, item in vars(cls).items():
        plain = item.__func__ if isinstance(item, classmethod) else item.fget if isinstance(item, property) else item
        own = isinstance(plain, FunctionType) and plain.__module__ == cls.__module__
        if own and (not name.startswith("_") or _is_call(name, plain, cls)):
            members[name] = _signature(plain)
    return members


def _is_call(name: str, function: FunctionType, cls: type) -> bool:
    return name == "__call__" and function.__qualname__.startswith(cls.__name__)


def _default(item: Any) -> str:
    if item.default is not MISSING:
        shown = sorted(item.default) if isinstance(item.default, frozenset) else item.default
        return f" = {shown!r}"
    return "" if item.default_factory is MISSING else f" = {item.default_factory.__name__}()"


def _signature(function: Any) -> str:
    return str(inspect.signature(function)).replace("'", "") if callable(function) else repr(function)


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, str(value)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
