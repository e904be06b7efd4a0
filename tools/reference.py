"""Write the reference pages that follow from the code: `python tools/reference.py`.

`tests/wiring/test_reference.py` compares `docs/reference/` with what this script would write.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from xtuner_core import Host, contracts, hookspecs, records
from xtuner_core.capabilities import CAPABILITIES
from xtuner_core.config.describe import REQUIRED, describe, field_docs
from xtuner_core.config.root import CoreConfig
from xtuner_core.registry import Offer
from xtuner_core.roles import ROLES

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Written by tools/reference.py; edit the docstrings and run it again. -->\n\n"


def pages() -> dict[str, str]:
    """Text of every page by file name."""
    host = Host()
    made = {
        "hooks.md": "".join(_hooks()),
        "slots.md": "".join(_slots(host)),
        "roles.md": "".join(_roles()),
        "capabilities.md": "".join(_capabilities(host)),
        "configuration.md": "".join(_configuration(host)),
    }
    return {name: NOTE + text.rstrip() + "\n" for name, text in made.items()}


def main() -> None:
    """Write them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)


# ── hooks and records ──────────────────────────────────────────────────────────────────────────────────────────────


def hook_names() -> list[str]:
    """Every hook, in the order of the contract."""
    return [name for name in vars(hookspecs) if name.startswith("xtuner_")]


def record_classes() -> list[type]:
    """Every record, in the order of the contract."""
    found = [item for item in vars(records).values() if isinstance(item, type) and is_dataclass(item)]
    return [item for item in found if item.__module__ == records.__name__]


def _hooks() -> Iterator[str]:
    yield f"# Hooks\n\nContract {'.'.join(map(str, hookspecs.CONTRACT))}. {_prose(hookspecs.__doc__)}\n\n"
    groups = _groups()
    for name in hook_names():
        if name in groups:
            yield f"# {groups[name]}\n\n"
        hook = getattr(hookspecs, name)
        yield f"## `{name}`\n\n```python\n{name}{_signature(hook)}\n```\n\n{_prose(hook.__doc__)}\n\n"
    yield "# Records\n\n"
    for record in record_classes():
        yield f"## `{record.__name__}`\n\n{_prose(record.__doc__)}\n\n{_fields(record)}\n"


def _groups() -> dict[str, str]:
    """The first hook of each group of the contract, and the group's title."""
    titles, title = {}, ""
    for line in inspect.getsource(hookspecs).splitlines():
        if match := re.match(r"# ── (.*?)[. ]*─*$", line):
            title = match.group(1)
        elif (match := re.match(r"def (xtuner_\w+)", line)) and title:
            titles[match.group(1)], title = title, ""
    return titles


# ── slots ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def factories() -> dict[str, type]:
    """Slot to the protocol of its factory, where its contract exists."""
    modules = [f"{contracts.__name__}.{item.name}" for item in pkgutil.iter_modules(contracts.__path__)]
    classes = {name: cls for module in modules for name, cls in vars(importlib.import_module(module)).items()}
    wanted = {slot: f"{slot.title()}Factory" for slot in records.SLOTS} | {"dataset": "CorpusFactory"}
    return {slot: classes[name] for slot, name in wanted.items() if name in classes}


def _slots(host: Host) -> Iterator[str]:
    yield "# Slots\n\nOne kind of thing that a plugin can offer. A run picks by `slot=name`.\n\n"
    rows = [[f"[`{slot}`](#{slot})", _takes(slot), text] for slot, text in records.SLOTS.items()]
    yield _table(("Slot", "A run takes", "What it is for"), rows) + "\n"
    made = factories()
    for slot, text in records.SLOTS.items():
        yield f"## `{slot}`\n\n{text[0].upper()}{text[1:]}.\n\n"
        yield from _contract(slot, made)
        offers = host.registry.of_slot(slot)
        if offers:
            yield _table(("Built in", "Summary"), [[_owned(offer), offer.provider.summary] for offer in offers]) + "\n"


def _takes(slot: str) -> str:
    if slot in records.MANY_SLOTS:
        return "any number, each under a name"
    return "all, by use" if slot in records.UNPICKED_SLOTS else "one"


def _contract(slot: str, made: dict[str, type]) -> Iterator[str]:
    if slot in records.RESERVED_SLOTS:
        yield "Reserved: the contract comes with the first provider.\n\n"
    if slot in made:
        call = _signature(made[slot].__call__).replace("(self, ", "(")
        yield f"Contract: `{made[slot].__module__}`. Its factory:\n\n```python\nfactory{call}\n```\n\n"
        yield f"{_prose(made[slot].__call__.__doc__)}\n\n"
    if slot in records.UNPICKED_SLOTS:
        yield (
            "Contract: `xtuner_core.contracts.operator`. The factory names an `Implementation` itself. "
            "Pin one with `operator.NAME=IMPLEMENTATION`.\n\n"
        )


# ── roles and capabilities ─────────────────────────────────────────────────────────────────────────────────────────


def _roles() -> Iterator[str]:
    yield "# Roles\n\nWhat a module or a bare parameter is in a model. A selector matches a role and everything below\n"
    yield "it; one that matches nothing in the built model is refused. A plugin adds leaves below one of these, or\n"
    yield "roots under its own name.\n\n"
    yield _table(("Role", "What it is"), [[f"`{role}`", text] for role, text in ROLES.items()])


def _capabilities(host: Host) -> Iterator[str]:
    yield "# Capabilities\n\nWords by which offers say what they provide, require and lack. A requirement is met by\n"
    yield "the word itself or by one below it. A plugin's private words begin with its name and stand in\n"
    yield "`PluginInfo.capabilities`.\n\n"
    offers = [offer for slot in records.SLOTS for offer in host.registry.of_slot(slot)]
    rows = [
        [f"`{word}`", text, *(_having(offers, word, kind) for kind in ("provides", "requires", "lacks"))]
        for word, text in CAPABILITIES.items()
    ]
    yield _table(("Capability", "What it means", "Provided by", "Required by", "Lacked by"), rows)


def _having(offers: Iterable[Offer], word: str, kind: str) -> str:
    return ", ".join(f"{o.slot} `{o.name}`" for o in offers if word in getattr(o.provider, kind))


# ── configuration ──────────────────────────────────────────────────────────────────────────────────────────────────


def configurations(host: Host) -> dict[str, type]:
    """Title of a section to its dataclass: the core's own, and one of each built-in offer that has any."""
    sections: dict[str, type] = {"The run": CoreConfig}
    offers = [offer for slot in records.SLOTS for offer in host.registry.of_slot(slot)]
    sections |= {f"`{o.slot}={o.name}`": cls for o in offers if (cls := host.config_class(o)) is not None}
    return sections


def _configuration(host: Host) -> Iterator[str]:
    yield "# Configuration\n\nEvery key of the core and of its built-in plugins. A plugin's own keys stand in its\n"
    yield "README, and in `xtuner-core plugins show NAME`. Write them in a recipe, or as `key=value` on the command\n"
    yield "line; `xtuner-core config show` says where each value of a run came from.\n\n"
    for title, cls in configurations(host).items():
        yield f"## {title}\n\n{_prose(cls.__doc__)}\n\n"
        slot, _, name = title.strip("`").partition("=")
        prefix = "" if cls is CoreConfig else f"{slot}.{name}." if slot in records.MANY_SLOTS else f"{slot}."
        yield _table(("Key", "Type", "Default", "Meaning"), list(_keys(cls, prefix))) + "\n"


def _keys(cls: type, prefix: str) -> Iterator[list[str]]:
    hints = get_type_hints(cls)
    for item in describe(cls):
        kind = hints[item["name"]]
        inside = next((each for each in get_args(kind) if is_dataclass(each)), None)
        if is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{item['name']}.")  # type: ignore[arg-type]
        elif inside is not None:
            yield [f"`{prefix}{item['name']}`", f"list of `{inside.__name__}`", "`[]`", item["doc"]]
            yield from _keys(inside, f"{prefix}{item['name']}[].")
        else:
            yield [f"`{prefix}{item['name']}`", f"`{item['type']}`", _given(item["default"]), item["doc"]]


# ── Markdown ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _signature(function: Any) -> str:
    return str(inspect.signature(function)).replace("'", "")


def _owned(offer: Offer) -> str:
    return f"`{offer.name}` of plugin `{offer.plugin}`"


def _fields(record: type) -> str:
    docs = field_docs(record)
    rows = [
        [f"`{name}`", f"`{field.type}`", _default(field), docs.get(name, "")]
        for name, field in record.__dataclass_fields__.items()  # type: ignore[attr-defined]
    ]
    return _table(("Field", "Type", "Default", "Meaning"), rows)


def _given(default: Any) -> str:
    return "required" if default == REQUIRED else f"`{default!r}`"


def _default(field: Any) -> str:
    from dataclasses import MISSING

    if field.default_factory is not MISSING:
        return f"`{field.default_factory()!r}`"
    return "required" if field.default is MISSING else f"`{_shown(field.default)}`"


def _shown(value: object) -> str:
    return repr(sorted(value)) if isinstance(value, frozenset) else repr(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(doc: str | None) -> str:
    """A docstring as Markdown: `:param x:` lines become a list."""
    lines = inspect.cleandoc(doc or "").splitlines()
    text = "\n".join(re.sub(r"^:(?:param )?(\w+(?: \w+)?):", r"- `\1`:", line) for line in lines)
    return re.sub(r"(\n)(- `)", r"\n\2", text)


if __name__ == "__main__":
    main()
