"""One assistant turn: what the model would have to produce after the generation prompt, its end of turn included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from xtuner_core.data.chat.jinja import ChatTemplate, Conversation
from xtuner_core.data.chat.marks import LITERAL, Rendered, Span
from xtuner_core.data.chat.messages import Unusable


@dataclass(frozen=True, slots=True)
class Endings:
    """The tokens that can end a turn."""

    stops: re.Pattern[str]
    """Those on which a model stops."""
    specials: re.Pattern[str]
    """All special tokens; where no stop is found, the one with which a turn ends is taken for it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant message in the form in which the model produced it: the last of its conversation."""

    message: int
    """Index of the message."""
    rendered: Rendered
    """The conversation up to it."""
    spans: tuple[Span, ...]
    """What the model produced."""
    closing: str = ""
    """The end-of-turn token; empty where the template writes none, or marks what is trained by itself."""

    @property
    def end(self) -> int:
        """Behind the last of the turn."""
        return self.spans[-1][1]

    def stands_in(self, text: str) -> bool:
        """Whether a rendering holds this turn, and all before it, in the same form."""
        return text.startswith(self.rendered.text[: self.end])


def find_turn(
    conversation: Conversation, message: int, whole: Rendered, template: ChatTemplate, endings: Endings
) -> Turn:
    """Find what of a message the model produced.

    Where the template marks it with `generation` blocks, that; else what follows the prompt that the template writes
    for an answer, up to the token that ends the turn. White space that templates write behind that is not trained.

    :param whole: the rendering of all messages.
    :raises Unusable: the template does not render the message as the answer to its own prompt, or not all of it.
    :raises Refused: the template cannot render it.
    """
    last = message + 1 == len(conversation.messages)
    rendered = whole if last else template.render(conversation, message + 1)
    if template.marks_turns:
        before = template.render(conversation, message).text if message else ""
        start = _common(before, rendered.text)
        turn = Turn(message, rendered, tuple(span for span in rendered.generated if span[0] >= start))
        if not turn.spans:
            raise Unusable(f"the chat template marks nothing of message {message + 1} as generated")
    else:
        prompt = template.render(conversation, message, prompt=True).text
        start = len(prompt)
        _check_prompt(prompt, rendered.text, message)
        end, closing = _end_of_turn(rendered, start, endings)
        turn = Turn(message, rendered, ((start, end),), closing)
    _check_rendered(conversation.messages[message], rendered.text[start:], message)
    return turn


def _check_prompt(prompt: str, text: str, message: int) -> None:
    if not text.startswith(prompt):
        common = _common(prompt, text)
        raise Unusable(
            f"the chat template asks for message {message + 1} with {prompt[common:][:60]!r} but renders it with "
            f"{text[common:][:60]!r} in that place, so the model would be trained in a form in which it is never "
            "asked; set algorithm.chat.variables, or algorithm.chat.template to one with {% generation %} blocks"
        )


def _end_of_turn(rendered: Rendered, start: int, endings: Endings) -> tuple[int, str]:
    """Find where the turn ends and the token that ends it."""
    found = first_outside(endings.stops, rendered, start)
    if found:
        return found.end(), found[0]
    matches = list(endings.specials.finditer(rendered.text, start))
    if matches and not rendered.text[matches[-1].end() :].strip():
        return matches[-1].end(), matches[-1][0]
    return len(rendered.text), ""


def first_outside(tokens: re.Pattern[str], rendered: Rendered, start: int) -> re.Match[str] | None:
    """The first of the tokens from `start` on that is not a text's own."""
    for match in tokens.finditer(rendered.text, start):
        if match.span() not in rendered.literal:
            return match
    return None


def _check_rendered(message: dict[str, Any], text: str, number: int) -> None:
    """Refuse to train on a turn of which the template leaves something out."""
    reasoning = str(message.get("reasoning_content", "")).strip()
    if reasoning and _unmarked(reasoning) not in text:
        raise Unusable(f"the chat template leaves out the reasoning of message {number + 1}; remove it, or set "
                       "algorithm.chat.template to a template that renders `reasoning_content`")  # fmt: skip
    for call in message.get("tool_calls") or ():
        name = call.get("function", call)["name"]
        if name not in text:
            raise Unusable(f"the chat template leaves out the tool call {name!r} of message {number + 1}; set "
                           "algorithm.chat.template to a template that renders `tool_calls`")  # fmt: skip


def _common(first: str, second: str) -> int:
    """Characters with which both begin."""
    shorter = min(len(first), len(second))
    if first[:shorter] == second[:shorter]:
        return shorter
    return next(place for place in range(shorter) if first[place] != second[place])


def _unmarked(text: str) -> str:
    return text.replace(LITERAL[0], "").replace(LITERAL[1], "")
