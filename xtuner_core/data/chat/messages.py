"""A record's messages, brought into the form that chat templates expect, with the reason where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from xtuner_core.contracts.dataset import ChatRecord

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names that templates and sources use for the same thing; all but the last are filled in for templates."""
MEDIA = {"image": "images", "audio": "sound", "video": "video"}
RESERVED_VARIABLES = {"messages", "tools", "add_generation_prompt"}
OURS = ("weight", "train")
"""Keys of a message that say what it counts, and which no template sees."""


class Unusable(Exception):
    """A record cannot be trained on; the message is the reason."""


def plain_messages(record: ChatRecord) -> list[dict[str, Any]]:
    """Messages as templates expect them.

    Keys without a value are left out, reasoning bears all its names, and arguments of tool calls that are JSON in a
    string (as OpenAI's API writes them) become the object that templates expect.

    :raises Unusable: a message is no message, or holds what is no text.
    """
    if not record.messages:
        raise Unusable("the conversation has no messages")
    return [_plain_message(message, number) for number, message in enumerate(record.messages, start=1)]


def plain_tools(record: ChatRecord) -> list[dict[str, Any]]:
    """Tools as templates expect them.

    :raises Unusable: one is not an object.
    """
    for number, tool in enumerate(record.tools, start=1):
        if not isinstance(tool, Mapping):
            raise Unusable(f"tool {number} is not an object with the JSON schema of a function")
    return [dict(tool) for tool in record.tools]


def plain_options(record: ChatRecord) -> dict[str, Any]:
    """Further variables of the template.

    :raises Unusable: one bears the name of what the conversation itself is.
    """
    taken = RESERVED_VARIABLES & set(record.options)
    if taken:
        raise Unusable(f"`{min(taken)}` cannot be a variable of the chat template; it is the conversation's own")
    return dict(record.options)


def message_weights(record: ChatRecord) -> list[float | None]:
    """What each message says that it counts: OpenAI's `weight`, or `train`, which is true or false.

    :raises Unusable: it says so in another way, or both.
    """
    return [_weight(message, number) for number, message in enumerate(record.messages, start=1)]


def flatten_parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace a list of text parts by one text, line by line, for templates that know texts only."""
    return [
        {**message, "content": "\n".join(part["text"] for part in message["content"])}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _plain_message(message: Any, number: int) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise Unusable(f"message {number} is not an object with a `role`")
    plain = {key: value for key, value in message.items() if value is not None and key not in OURS}
    _check_content(plain.get("content", ""), number)
    if plain.get("tool_calls"):
        plain["tool_calls"] = [_plain_call(call, number) for call in plain["tool_calls"]]
    reasoning = next((plain[name] for name in REASONING if name in plain), None)
    if reasoning is not None:
        plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
    return plain


def _check_content(content: Any, number: int) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise Unusable(f"message {number} has content that is neither text nor a list of parts")
    for place, part in enumerate(content, start=1):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            continue
        media = next((name for key, name in MEDIA.items() if key in str(kind)), None)
        if media:
            raise Unusable(f"{media} given to a text model: part {place} of message {number} is of type `{kind}`")
        raise Unusable(f"part {place} of message {number} is not a text part (its type is {kind!r})")


def _plain_call(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Unusable(f"message {number} has a tool call without the name of a function")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        function = {**function, "arguments": _parsed(arguments)}
    return {**call, "function": function} if "function" in call else dict(function)


def _parsed(arguments: str) -> Any:
    """The object that a string holds; the string where it holds none."""
    try:
        found = json.loads(arguments)
    except ValueError:
        return arguments
    return found if isinstance(found, dict) else arguments


def _weight(message: Mapping[str, Any], number: int) -> float | None:
    weight, train = (message.get(name) for name in OURS)
    if weight is not None and train is not None:
        raise Unusable(f"message {number} has both `weight` and `train`; keep one")
    if train is not None and not isinstance(train, bool):
        raise Unusable(f"message {number} has `train: {train!r}`; it is true or false")
    if weight is None:
        return None if train is None else float(train)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not (isfinite(weight) and weight >= 0):
        raise Unusable(f"message {number} has `weight: {weight!r}`; it is a number, 0 or more")
    return float(weight)
