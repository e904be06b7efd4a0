"""Conversations: their structure is checked, their meaning (order of roles, media) is the chat template's affair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xtuner_core.data.reading.faults import Fault, kind_of
from xtuner_core.data.reading.strict_json import parse

TURNS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
}
"""Speakers of ShareGPT's turns, and their roles."""
TEXTS = ("name", "tool_call_id", "reasoning_content")
"""Keys of a message that hold a text or null, where they are there."""

Messages = list[Mapping[str, Any]]


def check_messages(messages: Any) -> Messages:
    """The messages, if each is a mapping with a `role` and a `content` that a template can read.

    Content is a text, null, or a list of parts: texts, or mappings with a `type`; every part is kept as it is.

    :raises Fault: the structure is another.
    """
    if not isinstance(messages, list):
        raise Fault(f"a list of messages is wanted, not {kind_of(messages)}")
    if not messages:
        raise Fault("the list of messages is empty")
    for number, message in enumerate(messages, start=1):
        _check_message(message, f"message {number}")
    return messages


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, Mapping):
        raise Fault(f"{where} is {kind_of(message)}, not a mapping with role and content")
    if "role" not in message:
        raise Fault(f"{where} has no role; its keys are {', '.join(map(repr, sorted(message))) or 'none'}")
    if not isinstance(message["role"], str):
        raise Fault(f"the role of {where} is {kind_of(message['role'])}, not a text")
    for key in TEXTS:
        if not isinstance(message.get(key), str | None):
            raise Fault(f"{key} of {where} is {kind_of(message[key])}, not a text")
    _check_content(message.get("content"), where)
    _check_mappings(message.get("tool_calls"), f"tool_calls of {where}")


def _check_content(content: Any, where: str) -> None:
    if isinstance(content, str | None):
        return
    if not isinstance(content, list):
        raise Fault(f"the content of {where} is {kind_of(content)}, not a text, a list of parts or null")
    for part in content:
        if isinstance(part, str):
            continue
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise Fault(f"the content of {where} has a part that is neither a text nor a mapping with a type")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise Fault(f"the content of {where} has a part of type text without a text")


def _check_mappings(value: Any, where: str) -> None:
    if value is not None and not (isinstance(value, list) and all(isinstance(item, Mapping) for item in value)):
        raise Fault(f"{where} is no list of mappings")


def check_tools(tools: Any, key: str) -> Messages:
    """The functions on offer, as a list or as JSON in a text; none where there is nothing.

    :raises Fault: they are something else.
    """
    if isinstance(tools, str):
        tools = parse(tools) if tools.strip() else None
    _check_mappings(tools, key)
    return tools or []


def check_options(options: Any, key: str) -> Mapping[str, Any]:
    """Variables of the template; none where there is nothing.

    :raises Fault: they are no mapping.
    """
    if not isinstance(options, Mapping | None):
        raise Fault(f"{key} is {kind_of(options)}, not a mapping")
    return options or {}


def of_turns(turns: Any) -> Messages:
    """Messages of ShareGPT's turns, `{"from": "human", "value": "…"}`.

    :raises Fault: a turn has another form, or a speaker who is not in `TURNS`.
    """
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise Fault("conversations is no list of mappings with from and value")
    return [_of_turn(turn, number) for number, turn in enumerate(turns, start=1)]


def _of_turn(turn: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    if "role" in turn:
        return turn
    speaker, value = turn.get("from"), turn.get("value")
    if speaker not in TURNS:
        raise Fault(f"turn {number} of conversations is from {speaker!r}; known are {', '.join(TURNS)}")
    if not isinstance(value, str):
        raise Fault(f"the value of turn {number} of conversations is {kind_of(value)}, not a text")
    return {"role": TURNS[speaker], "content": value}


def of_prompt(prompt: Any, completion: Any) -> Messages:
    """Messages of a prompt and a completion: two texts (of the user, the assistant), or two lists of messages.

    :raises Fault: they are neither.
    """
    if isinstance(prompt, str) and isinstance(completion, str):
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    if isinstance(prompt, list) and isinstance(completion, list):
        return [*prompt, *completion]
    raise Fault(f"prompt is {kind_of(prompt)} and completion {kind_of(completion)}, not two texts or two lists")
