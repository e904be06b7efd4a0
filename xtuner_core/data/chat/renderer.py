"""A chat record to the texts that are trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from typing import Any

from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.data.chat.config import ChatConfig
from xtuner_core.data.chat.find import read_chat_files
from xtuner_core.data.chat.jinja import ChatTemplate, Conversation, Refused
from xtuner_core.data.chat.literal import first_special, mark_specials, pattern_of, refuse_reserved
from xtuner_core.data.chat.marks import Rendered
from xtuner_core.data.chat.messages import (
    Unusable,
    flatten_parts,
    message_weights,
    plain_messages,
    plain_options,
    plain_tools,
)
from xtuner_core.data.chat.samples import ASSISTANT, Sample, make_samples
from xtuner_core.data.chat.turns import Endings


class ChatRenderer:
    """Renders conversations with the chat template of a tokenizer.

    :raises DataError: a template cannot be read or is not Jinja. That there is none is said of each record.
    """

    def __init__(self, tokenizer: Tokenizer, config: ChatConfig) -> None:
        self._config = config
        self._files = read_chat_files(tokenizer.folder, config.template)
        self._specials = pattern_of(tokenizer.special_tokens)
        stops = [tokenizer.decode([number], special_tokens=True) for number in tokenizer.stop_tokens]
        self._endings = Endings(stops=pattern_of(stops), specials=self._specials)
        self._compile()

    @property
    def specials(self) -> re.Pattern[str]:
        """What finds a special token in a text."""
        return self._specials

    def description(self) -> dict[str, Any]:
        """Everything that decides what is rendered, without paths; plain data."""
        settings = {name: value for name, value in asdict(self._config).items() if name != "template"}
        return {"templates": self._files.templates, "tokens": self._files.variables, "settings": settings}

    def samples(self, record: ChatRecord) -> list[Sample] | BrokenRecord:
        """The documents of a conversation, or why there are none."""
        try:
            conversation, template = self._prepared(record)
            return make_samples(conversation, message_weights(record), template, self._endings, self._config)
        except (Unusable, Refused) as error:
            return BrokenRecord(origin=record.origin, reason=str(error))

    def prompt(self, record: ChatRecord) -> Rendered | BrokenRecord:
        """What a model is given to answer: everything before the last assistant message, and the generation prompt."""
        try:
            conversation, template = self._prepared(record)
            roles = [message["role"] for message in conversation.messages]
            answer = len(roles) - 1 - roles[::-1].index(ASSISTANT) if ASSISTANT in roles else None
            return template.render(conversation, answer, prompt=True)
        except (Unusable, Refused) as error:
            return BrokenRecord(origin=record.origin, reason=str(error))

    def _prepared(self, record: ChatRecord) -> tuple[Conversation, ChatTemplate]:
        template = self._template(record)
        messages, tools, variables = plain_messages(record), plain_tools(record) or None, plain_options(record)
        data = [messages, tools, variables]
        refuse_reserved(data)
        spelled = None if self._config.special_tokens == "token" else first_special(data, self._specials)
        if spelled and self._config.special_tokens == "refuse":
            raise Unusable(f"a text spells the special token {spelled!r}")
        if spelled:
            messages, tools, variables = mark_specials(data, self._specials)
        if template.source not in self._takes_parts:
            messages = flatten_parts(messages)
        return Conversation(messages, tools, {**self._variables(), **variables}), template

    def _variables(self) -> Mapping[str, Any]:
        return {**self._files.variables, "documents": None, **self._config.variables}

    def _template(self, record: ChatRecord) -> ChatTemplate:
        name = self._files.choose(tools=bool(record.tools))
        if name is not None:
            return self._templates[name]
        where = f"the tokenizer in {self._files.folder}"
        if self._files.templates:
            names = ", ".join(sorted(self._files.templates))
            raise Unusable(f"{where} has several chat templates and no default; set algorithm.chat.template to one of "
                           f"{names}")  # fmt: skip
        raise Unusable(f"{where} has no chat template; set algorithm.chat.template=FILE")

    def _compile(self) -> None:
        day = date.fromisoformat(self._config.date)
        self._templates = {
            name: ChatTemplate(source, name=f"the chat template {name!r} of {self._files.folder}", day=day)
            for name, source in self._files.templates.items()
        }
        self._takes_parts = {each.source for each in self._templates.values() if _takes_parts(each, self._variables())}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_templates"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._compile()


def _takes_parts(template: ChatTemplate, variables: Mapping[str, Any]) -> bool:
    """Whether a template renders a list of text parts as it renders their text."""
    contents: list[Any] = ["some text", [{"type": "text", "text": "some text"}]]
    try:
        first, second = (
            template.render(Conversation([{"role": "user", "content": content}], None, variables)).text
            for content in contents
        )
    except Refused:
        return False
    return first == second
