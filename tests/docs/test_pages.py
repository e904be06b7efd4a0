"""The pages speak of what there is: commands, options, links, names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import xtuner_core
import xtuner_core.api
import xtuner_core.nn
import xtuner_core.testing
from xtuner_core.cli.group import LazyGroup
from xtuner_core.cli.main import cli
from xtuner_core.cli.session import Session

LINE = re.compile(r"^\s*(?:\$ )?(xtuner-core(?: .*)?)$", re.MULTILINE)
SPAN = re.compile(r"`(xtuner-core [^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def test_every_command_line_names_commands_and_options_that_exist(pages, blocks):
    found = 0
    for page, text in pages.items():
        lines = [line for block in blocks[page] if block.language != "python" for line in LINE.findall(block.text)]
        for line in [*lines, *SPAN.findall(text)]:
            check_command(line, page)
            found += 1
    assert found > 30


def check_command(line: str, page: Path) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="xtuner-core", obj=Session())
    named = False
    while isinstance(command, LazyGroup) and words and words[0] not in ("-h", "--help", "--version", "…"):
        word = words.pop(0)
        if word in ("--plugins", "-p"):
            named = bool(words.pop(0))
        elif word != "--debug":
            own = LazyGroup.get_command(command, context, word)
            if own is None and (named or word.isupper()):
                return  # a plugin's command, or any
            assert own is not None, f"{page}: {line!r}: there is no command {word!r}"
            command, context = own, click.Context(own, info_name=word, parent=context, obj=Session())
    if isinstance(command, LazyGroup):
        return
    try:
        command.make_context(command.name, [word for word in words if word != "…"], parent=context.parent)
    except click.exceptions.Exit:
        pass  # --help
    except click.MissingParameter:
        assert not words, f"{page}: {line!r} leaves an argument out"  # a command mentioned by its name alone
    except click.UsageError as error:
        pytest.fail(f"{page}: {line!r}: {error.format_message()}")


def test_every_command_is_documented(documentation):
    missing = [name for name in commands(cli, "xtuner-core") if name not in documentation]
    assert missing == []


def commands(group: LazyGroup, path: str) -> Iterator[str]:
    for name in group.lazy:
        command = LazyGroup.get_command(group, click.Context(group), name)
        if isinstance(command, LazyGroup):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def test_every_option_of_a_command_is_documented(documentation):
    missing = [option for option in options(cli) if option not in documentation]
    assert missing == []


def options(group: LazyGroup) -> Iterator[str]:
    yield from (name for item in group.params for name in item.opts if name.startswith("--"))
    for name in group.lazy:
        command = LazyGroup.get_command(group, click.Context(group), name)
        if isinstance(command, LazyGroup):
            yield from options(command)
        else:
            assert command is not None
            yield from (name for item in command.params for name in item.opts if name.startswith("--"))


def test_links_between_pages_resolve(pages):
    broken = []
    for page, text in pages.items():
        for target in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page}: {target}")
    assert broken == []


def anchors(file: Path) -> set[str]:
    headings = HEADING.findall(file.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index(root, pages):
    index = (root / "docs" / "README.md").read_text(encoding="utf-8")
    listed = {(root / "docs" / target.partition("#")[0]).resolve() for target in LINK.findall(index)}
    written = {page for page in pages if root / "docs" in page.parents and page.name != "README.md"}
    assert written - listed == set()


@pytest.mark.parametrize("module", [xtuner_core, xtuner_core.api, xtuner_core.testing, xtuner_core.nn], ids=str)
def test_every_public_name_is_documented(module, documentation):
    missing = [name for name in module.__all__ if not re.search(rf"`[^`\n]*\b{name}\b", documentation)]
    assert missing == []


def test_the_architecture_page_names_every_module_and_folder_of_the_core(root):
    page = (root / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    core = root / "xtuner_core"
    folders = {f"{item.name}/" for item in core.iterdir() if (item / "__init__.py").exists()}
    modules = {item.name for item in core.glob("*.py") if not item.name.startswith("__")}
    named = set(re.findall(r"(?<![\w/])\w+(?:\.py|/)", page))
    assert (folders | modules) - named == set()
