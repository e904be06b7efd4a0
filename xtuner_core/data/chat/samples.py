"""Which renderings of a conversation are trained on, and which characters of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xtuner_core.data.chat.config import ChatConfig
from xtuner_core.data.chat.jinja import ChatTemplate, Conversation
from xtuner_core.data.chat.marks import Rendered
from xtuner_core.data.chat.messages import Unusable
from xtuner_core.data.chat.turns import Endings, Turn, find_turn, first_outside

ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Sample:
    """One document before it is tokenised."""

    rendered: Rendered
    trained: tuple[tuple[int, int, float], ...] | None
    """First character, the one behind the last, and what the tokens in between count; None is everything, 1."""


def make_samples(
    conversation: Conversation,
    weights: list[float | None],
    template: ChatTemplate,
    endings: Endings,
    config: ChatConfig,
) -> list[Sample]:
    """Render a conversation once, and again for each assistant turn that stands otherwise in it than when it was new.

    :raises Unusable: nothing of it can be trained on as the settings ask.
    :raises Refused: the template cannot render it.
    """
    chosen = _chosen(conversation, weights, config)
    whole = template.render(conversation)
    _check_tools(conversation, whole.text)
    if config.train_on == "all":
        return [Sample(whole, None)]
    turns = [find_turn(conversation, message, whole, template, endings) for message in chosen]
    if config.earlier_turns == "rendered":
        return [_as_rendered(whole, turns, chosen, conversation, endings)]
    found = [_sample(rendered, held, chosen, endings) for rendered, held in _cover(whole, turns)]
    if config.earlier_turns == "context":
        found = [sample for sample in found if sample.rendered is whole]
    if not found:
        raise Unusable("the chat template renders every assistant turn otherwise once more messages follow; "
                       "algorithm.chat.earlier_turns=expand trains on each as it was")  # fmt: skip
    return found


def _chosen(conversation: Conversation, weights: list[float | None], config: ChatConfig) -> dict[int, float]:
    """What each assistant message that is trained on counts."""
    for number, (message, weight) in enumerate(zip(conversation.messages, weights, strict=True), start=1):
        if weight and message["role"] != ASSISTANT and config.train_on != "all":
            raise Unusable(f"message {number} has role {message['role']!r} and a weight above 0; "
                           "algorithm.chat.train_on=all trains on more than the assistant's")  # fmt: skip
        if weight not in (None, 1.0) and config.train_on == "all":
            raise Unusable(f"message {number} has weight {weight:g}, and algorithm.chat.train_on=all knows no weights")
    found = [number for number, message in enumerate(conversation.messages) if message["role"] == ASSISTANT]
    if config.train_on == "all":
        return {}
    if not found:
        raise Unusable("the conversation has no assistant message to train on")
    counted = {number: 1.0 if weights[number] is None else float(weights[number] or 0) for number in found}
    if config.train_on == "last":
        counted = {found[-1]: counted[found[-1]]}
    chosen = {number: weight for number, weight in counted.items() if weight > 0}
    if not chosen:
        raise Unusable("the weight of every assistant message that would be trained on is 0")
    return chosen


def _check_tools(conversation: Conversation, text: str) -> None:
    for tool in conversation.tools or ():
        name = tool.get("function", tool).get("name") if isinstance(tool, dict) else None
        if isinstance(name, str) and name not in text:
            raise Unusable(f"the chat template leaves out the tool {name!r}; set algorithm.chat.template to a "
                           "template that renders `tools`")  # fmt: skip


def _cover(whole: Rendered, turns: list[Turn]) -> Iterator[tuple[Rendered, list[Turn]]]:
    """Yield renderings that hold each turn once as it was when it was new: as few as follow from the last on."""
    left = list(turns)
    for rendered in (whole, *(turn.rendered for turn in reversed(turns))):
        held = [turn for turn in left if turn.stands_in(rendered.text)]
        if held and (rendered is whole or left[-1].rendered is rendered):
            yield rendered, held
            left = [turn for turn in left if turn not in held]
            if not left:
                return


def _sample(rendered: Rendered, turns: list[Turn], weights: Mapping[int, float], endings: Endings) -> Sample:
    trained: list[tuple[int, int, float]] = []
    for turn in turns:
        spans = [(start, end, weights[turn.message]) for start, end in turn.spans]
        following = endings.stops.match(rendered.text, turn.end)
        if following and not turn.closing and not rendered.generated:
            # Some templates end a turn with the token that begins the next message (GLM).
            spans[-1] = (spans[-1][0], following.end(), weights[turn.message])
        trained += spans
    return Sample(rendered, tuple(trained))


def _as_rendered(
    whole: Rendered, turns: list[Turn], weights: Mapping[int, float], conversation: Conversation, endings: Endings
) -> Sample:
    """Train on all turns as they stand in the whole conversation."""
    if whole.generated:
        everyone = [number for number, message in enumerate(conversation.messages) if message["role"] == ASSISTANT]
        if len(everyone) != len(whole.generated):
            raise Unusable(
                f"the chat template marks {len(whole.generated)} parts of {len(everyone)} assistant messages"
            )
        spans = zip(everyone, whole.generated, strict=True)
        return Sample(whole, tuple((*span, weights[number]) for number, span in spans if number in weights))
    return Sample(whole, tuple((*_place(whole, turn, endings), weights[turn.message]) for turn in turns))


def _place(whole: Rendered, turn: Turn, endings: Endings) -> tuple[int, int]:
    start = turn.spans[0][0]
    closing = first_outside(endings.specials, whole, start)
    while closing and closing[0] != turn.closing:
        closing = first_outside(endings.specials, whole, closing.end())
    if closing is None or not whole.text.startswith(turn.rendered.text[:start]):
        raise Unusable(f"message {turn.message + 1} is not to be found in the whole conversation; "
                       "algorithm.chat.earlier_turns=expand trains on it as it was")  # fmt: skip
    return start, closing.end()
