"""Rendered text, token ids and masks are those of transformers' `apply_chat_template`."""

from __future__ import annotations

import numpy as np
import pytest

from xtuner_core.contracts.dataset import ChatRecord, Origin

STYLES = ("chatml", "chatml_marked", "headers", "thinking", "inst", "bars", "next_header", "trailing_end", "untrimmed")
SYSTEM = {"role": "system", "content": "Speak plainly, with “quotes” & <angles>."}
USER = {"role": "user", "content": "Who built the ark?\n"}
ANSWER = {"role": "assistant", "content": "  Noah did.\n\nOf gopher wood. 🙂"}
MORE = {"role": "user", "content": "And the sons?"}
LAST = {"role": "assistant", "content": "Shem, Ham and Japheth."}
WEATHER = {
    "type": "function",
    "function": {"name": "flood", "description": "Depth <m> & “more”", "parameters": {"type": "object"}},
}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "flood", "arguments": {"day": 40, "wo": "Ararat ü"}}}],
}
RESULT = {"role": "tool", "content": "15 cubits"}
SHAPES = {
    "one turn": [USER, ANSWER],
    "system": [SYSTEM, USER, ANSWER],
    "several turns": [SYSTEM, USER, ANSWER, MORE, LAST],
    "no answer yet": [USER, ANSWER, MORE],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kit", STYLES, indirect=True)
def test_text_and_ids_are_those_of_transformers(kit, shape):
    messages = SHAPES[shape]
    theirs = kit.theirs.apply_chat_template(messages, tokenize=False)
    ids = kit.theirs.apply_chat_template(messages, tokenize=True, return_dict=False)
    (document,) = kit.encode(messages, train_on="all")
    assert kit.text(document.token_ids) == theirs
    assert document.token_ids.tolist() == ids
    assert document.weights is None


@pytest.mark.parametrize(("kit", "tools"), [("chatml", [WEATHER]), ("bars", [])], indirect=["kit"])
def test_tools_and_their_calls_are_rendered_as_transformers_does(kit, tools):
    messages = [USER, CALL, RESULT, ANSWER]
    ids = kit.theirs.apply_chat_template(messages, tools=tools or None, tokenize=True, return_dict=False)
    assert kit.encode(messages, tools=tools, train_on="all")[0].token_ids.tolist() == ids
    # OpenAI's API writes the arguments as JSON in a string; templates expect the object.
    function = {"name": "flood", "arguments": '{"day": 40, "wo": "Ararat ü"}'}
    as_text = {**CALL, "tool_calls": [{"type": "function", "function": function}]}
    assert kit.encode([USER, as_text, RESULT, ANSWER], tools=tools, train_on="all")[0].token_ids.tolist() == ids


@pytest.mark.parametrize("kit", STYLES, indirect=True)
def test_the_prompt_of_an_answer_is_transformers_generation_prompt(kit):
    record = ChatRecord(origin=Origin("chats"), messages=[USER, ANSWER, MORE, LAST])
    theirs = kit.theirs.apply_chat_template(
        [USER, ANSWER, MORE], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert kit.encoder().prompt(record).tolist() == theirs


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_of_a_template_that_marks_turns_is_transformers_mask(kit_of, shape):
    kit = kit_of("chatml_marked")
    assert_same_mask(kit, SHAPES[shape])


def assert_same_mask(kit, messages, tools=()):
    theirs = kit.theirs.apply_chat_template(
        messages, tools=list(tools) or None, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    (document,) = kit.encode(messages, tools=tools)
    assert document.token_ids.tolist() == theirs["input_ids"]
    assert document.weights.tolist() == theirs["assistant_masks"]
    assert 0 < np.count_nonzero(document.weights) < len(document.weights)
