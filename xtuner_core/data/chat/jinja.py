"""A chat template, rendered in a sandbox to the text that `transformers` would make of it.

Facts: the environment (trimmed blocks, loop controls, plain `tojson`, `raise_exception`, `strftime_now`, the
`generation` block) is that of `apply_chat_template`, transformers 5. A template comes with a checkpoint and is not
trusted: jinja2's sandbox keeps it from attributes of Python's own, and it is given plain JSON data only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from jinja2 import Environment, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from xtuner_core.data.chat.marks import GENERATED, Rendered, unmark
from xtuner_core.errors import DataError


class Refused(Exception):
    """The template cannot render a conversation, or will not."""


class ChatTemplate:
    """One template.

    :param source: in Jinja.
    :param name: stands in messages.
    :param day: what `strftime_now` takes for today, at midnight.
    :raises DataError: it is not Jinja.
    """

    def __init__(self, source: str, *, name: str, day: date) -> None:
        self.source = source
        environment = _environment(day)
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            fix = "repair the template, or name another: algorithm.chat.template=FILE"
            raise DataError(f"{name}, line {error.lineno}, is not a chat template: {error.message}", fix=fix) from error
        self.marks_turns = environment.extensions[_Generation.identifier].used  # type: ignore[attr-defined]

    def render(self, conversation: Conversation, stop: int | None = None, *, prompt: bool = False) -> Rendered:
        """Render the messages before `stop`, all by default.

        :param prompt: whether the generation prompt follows, as when a model is to answer.
        :raises Refused: with the template's own words, or what went wrong in it.
        """
        try:
            text = self._template.render(
                conversation.variables,
                messages=conversation.messages[:stop],
                tools=conversation.tools,
                add_generation_prompt=prompt,
            )
        except TemplateError as error:
            raise Refused(f"the chat template refuses it: {error}") from error
        except Exception as error:
            raise Refused(f"the chat template cannot render it: {type(error).__name__}: {error}") from error
        return unmark(text)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a template is given: plain JSON data."""

    messages: list[dict[str, Any]]
    tools: list[Any] | None
    variables: Mapping[str, Any]
    """Special tokens by role (`bos_token`), `documents`, and whatever the settings and the record add."""


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` around what the assistant said."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}
        self.used = False

    def parse(self, parser: Parser) -> nodes.Node:
        self.used = True
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> str:
        return f"{GENERATED[0]}{caller()}{GENERATED[1]}"


def _environment(day: date) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = datetime.combine(day, time()).strftime
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateError(message)
