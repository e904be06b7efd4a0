"""The reference pages say what the code says, and the code says something of everything."""

from __future__ import annotations

import importlib.util
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from xtuner_core import Host, hookspecs
from xtuner_core.capabilities import CAPABILITIES
from xtuner_core.config.describe import field_docs
from xtuner_core.config.root import CoreConfig
from xtuner_core.records import RESERVED_SLOTS, SLOTS, UNPICKED_SLOTS
from xtuner_core.roles import ROLES

ROOT = Path(__file__).parents[2]
PAGES = ("hooks.md", "slots.md", "roles.md", "capabilities.md", "configuration.md")
HOOKS = [name for name in vars(hookspecs) if name.startswith("xtuner_")]


@pytest.fixture(scope="module")
def tool():
    """tools/reference.py."""
    spec = importlib.util.spec_from_file_location("tools_reference", ROOT / "tools" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page():
    return lambda name: (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


def test_every_page_is_as_the_code_writes_it(tool, page):
    made = tool.pages()
    assert tuple(made) == PAGES
    stale = [name for name, text in made.items() if page(name) != text]
    assert not stale, f"run python tools/reference.py: {stale}"


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented(page, name):
    below = page("hooks.md").partition(f"\n## `{name}`\n")[2].split("\n## ")[0]
    assert getattr(hookspecs, name).__doc__.splitlines()[0] in below


@pytest.mark.parametrize("name", SLOTS)
def test_every_slot_is_documented_with_its_contract(tool, page, name):
    below = page("slots.md").partition(f"\n## `{name}`\n")[2].split("\n## ")[0]
    purpose = SLOTS[name]
    assert f"\n{purpose[0].upper()}{purpose[1:]}.\n" in below
    assert ("Reserved:" in below) == (name in RESERVED_SLOTS)
    assert name in RESERVED_SLOTS or name in UNPICKED_SLOTS or "```python\nfactory(" in below


@pytest.mark.parametrize("name", ROLES)
def test_every_role_is_documented(page, name):
    assert f"\n| `{name}` | {ROLES[name]} |" in page("roles.md")


@pytest.mark.parametrize("name", CAPABILITIES)
def test_every_capability_is_documented(page, name):
    assert f"\n| `{name}` | {CAPABILITIES[name]} |" in page("capabilities.md")


def test_every_record_is_documented(tool, page):
    for record in tool.record_classes():
        assert f"\n## `{record.__name__}`\n\n{record.__doc__.splitlines()[0]}" in page("hooks.md")


def test_every_configuration_field_says_what_it_means(tool):
    silent = [
        f"{cls.__name__}.{name}" for cls in _with_nested(tool.configurations(Host())) for name in _undocumented(cls)
    ]
    assert silent == []


def _with_nested(sections):
    for cls in sections.values():
        yield cls
        yield from (kind for kind in get_type_hints(cls).values() if is_dataclass(kind))


def _undocumented(cls):
    docs, hints = field_docs(cls), get_type_hints(cls)
    return [name for name in cls.__dataclass_fields__ if not docs.get(name) and not is_dataclass(hints[name])]


def test_every_key_of_the_core_is_documented(page):
    text = page("configuration.md")
    for name, kind in get_type_hints(CoreConfig).items():
        assert (f"| `{name}." if is_dataclass(kind) else f"| `{name}` |") in text
