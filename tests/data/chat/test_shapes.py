"""Shapes of conversations: what is trained on in each, written out by hand with ⟦ ⟧ around it.

The reference is the written-out text, tokenised by transformers: a token is trained on where any of its characters is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

from xtuner_core.contracts.dataset import Origin, TextRecord, TokenRecord

HELP = "<|im_start|>system\nYou help.<|im_end|>\n"
ASK = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello."}
MORE = {"role": "user", "content": "More?"}
BYE = {"role": "assistant", "content": "No."}
TOOL = {"type": "function", "function": {"name": "sum", "parameters": {}}}
TOOL_TEXT = '{"type": "function", "function": {"name": "sum", "parameters": {}}}'
CALL = {
    "role": "assistant",
    "content": "Let me see.",
    "tool_calls": [{"function": {"name": "sum", "arguments": {"a": 1}}}],
}
RESULT = {"role": "tool", "content": "3"}


def thought(text: str, reasoning: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "reasoning_content": reasoning}


class Shape(NamedTuple):
    kit: str
    messages: list[dict[str, Any]]
    documents: list[str]
    settings: Mapping[str, Any] = MappingProxyType({})
    tools: tuple[Any, ...] = ()
    options: Mapping[str, Any] = MappingProxyType({})


SHAPES = {
    "system": Shape(
        "chatml",
        [{"role": "system", "content": "Be brief."}, ASK, HELLO],
        [("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
         "<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n")],
    ),
    "several turns": Shape(
        "chatml",
        [ASK, HELLO, MORE, BYE],
        [HELP + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"
         "<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\n⟦No.<|im_end|>⟧\n"],
    ),
    "tools": Shape(
        "chatml",
        [ASK, CALL, RESULT, HELLO],
        ["<|im_start|>system\nYou may call:\n" + TOOL_TEXT + "\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
         '<|im_start|>assistant\n⟦Let me see.\n<tool_call>\n{"name": "sum", "arguments": {"a": 1}}'
         "\n</tool_call><|im_end|>⟧\n"
         "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n"
         "<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"],
        tools=(TOOL,),
    ),
    "tools without headers": Shape(
        "bars",
        [ASK, CALL, RESULT, HELLO],
        [("<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>⟦Let me see.<｜tool▁calls▁begin｜>sum\n"
         '{"a": 1}<｜tool▁calls▁end｜><｜end▁of▁sentence｜>⟧<｜tool▁outputs▁begin｜>3<｜tool▁outputs▁end｜>'
         "⟦Hello.<｜end▁of▁sentence｜>⟧")],
    ),
    "empty answer": Shape(
        "chatml",
        [ASK, {"role": "assistant", "content": ""}],
        [HELP + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦<|im_end|>⟧\n"],
    ),
    "question at the end": Shape(
        "chatml",
        [ASK, HELLO, MORE],
        [HELP + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"
         "<|im_start|>user\nMore?<|im_end|>\n"],
    ),
    "two answers in a row": Shape(
        "chatml",
        [ASK, HELLO, BYE],
        [HELP + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"
         "<|im_start|>assistant\n⟦No.<|im_end|>⟧\n"],
    ),
    "a turn of weight 0": Shape(
        "chatml",
        [ASK, {**HELLO, "weight": 0}, MORE, {**BYE, "weight": 1}],
        [HELP + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
         "<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\n⟦No.<|im_end|>⟧\n"],
    ),
    "the last turn": Shape(
        "chatml",
        [ASK, HELLO, MORE, BYE],
        [HELP + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
         "<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\n⟦No.<|im_end|>⟧\n"],
        {"train_on": "last"},
    ),
    "reasoning": Shape(
        "thinking",
        [ASK, thought("Hello.", "Greet.")],
        [("<|im_start|>user\nHi<|im_end|>\n"
         "<|im_start|>assistant\n⟦<think>\nGreet.\n</think>\n\nHello.<|im_end|>⟧\n")],
    ),
    "reasoning that later turns lose": Shape(
        "thinking",
        [ASK, thought("Hello.", "Greet."), MORE, thought("No.", "Refuse.")],
        [("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
         "<|im_start|>user\nMore?<|im_end|>\n"
         "<|im_start|>assistant\n⟦<think>\nRefuse.\n</think>\n\nNo.<|im_end|>⟧\n"),
         ("<|im_start|>user\nHi<|im_end|>\n"
         "<|im_start|>assistant\n⟦<think>\nGreet.\n</think>\n\nHello.<|im_end|>⟧\n")],
    ),
    "reasoning between tools": Shape(
        "thinking",
        [ASK, thought("Hello.", "Greet."), MORE, thought("Looking.", "Look."), RESULT, thought("No.", "Refuse.")],
        [("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
         "<|im_start|>user\nMore?<|im_end|>\n"
         "<|im_start|>assistant\n⟦<think>\nLook.\n</think>\n\nLooking.<|im_end|>⟧\n<|im_start|>tool\n3<|im_end|>\n"
         "<|im_start|>assistant\n⟦<think>\nRefuse.\n</think>\n\nNo.<|im_end|>⟧\n"),
         ("<|im_start|>user\nHi<|im_end|>\n"
         "<|im_start|>assistant\n⟦<think>\nGreet.\n</think>\n\nHello.<|im_end|>⟧\n")],
    ),
    "a question after reasoning": Shape(
        "thinking",
        [ASK, thought("Hello.", "Greet."), MORE],
        [("<|im_start|>user\nHi<|im_end|>\n"
         "<|im_start|>assistant\n⟦<think>\nGreet.\n</think>\n\nHello.<|im_end|>⟧\n")],
    ),
    "reasoning as it stands": Shape(
        "thinking",
        [ASK, thought("Hello.", "Greet."), MORE, thought("No.", "Refuse.")],
        [("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello.<|im_end|>⟧\n"
         "<|im_start|>user\nMore?<|im_end|>\n"
         "<|im_start|>assistant\n⟦<think>\nRefuse.\n</think>\n\nNo.<|im_end|>⟧\n")],
        {"earlier_turns": "rendered"},
    ),
    "reasoning as context": Shape(
        "thinking",
        [ASK, thought("Hello.", "Greet."), MORE, thought("No.", "Refuse.")],
        [("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
         "<|im_start|>user\nMore?<|im_end|>\n"
         "<|im_start|>assistant\n⟦<think>\nRefuse.\n</think>\n\nNo.<|im_end|>⟧\n")],
        {"earlier_turns": "context"},
    ),
    "thinking turned off": Shape(
        "thinking",
        [ASK, HELLO],
        ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n⟦Hello.<|im_end|>⟧\n"],
        {"variables": {"enable_thinking": True}},
        options={"enable_thinking": False},
    ),
    "a system prompt that moves": Shape(
        "inst",
        [{"role": "system", "content": "Brief."}, ASK, HELLO, MORE, BYE],
        ["<s>[INST] Hi[/INST] Hello.</s>[INST] Brief.\n\nMore?[/INST]⟦ No.</s>⟧",
         "<s>[INST] Brief.\n\nHi[/INST]⟦ Hello.</s>⟧"],
    ),
    "a turn that the next header ends": Shape(
        "next_header",
        [ASK, HELLO, MORE, BYE],
        ["[gMASK]<sop><|user|>\nHi<|assistant|>\n⟦Hello.<|user|>⟧\nMore?<|assistant|>\n⟦No.⟧"],
    ),
    "an end of text behind the last turn": Shape(
        "trailing_end",
        [ASK, HELLO, MORE, BYE],
        [("<|user|>\nHi<|end|>\n<|assistant|>\n⟦Hello.<|end|>⟧\n<|user|>\nMore?<|end|>\n"
         "<|assistant|>\n⟦No.<|end|>⟧\n<|endoftext|>")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_trained_on_is_what_a_person_would_mark(name, kit_of):
    shape = SHAPES[name]
    kit = kit_of(shape.kit)
    found = kit.encode(shape.messages, tools=shape.tools, options=shape.options, **shape.settings)
    assert [kit.text(document.token_ids) for document in found] == [plain(text) for text in shape.documents]
    for document, text in zip(found, shape.documents, strict=True):
        ids, mask = reference(kit, text)
        assert document.token_ids.tolist() == ids
        assert document.weights.tolist() == mask


def plain(text: str) -> str:
    return re.sub("[⟦⟧]", "", text)


def reference(kit: Any, text: str) -> tuple[list[int], list[float]]:
    inside, level = [], 0
    for character in text:
        level += (character == "⟦") - (character == "⟧")
        if character not in "⟦⟧":
            inside.append(level)
    found = kit.theirs(plain(text), add_special_tokens=False, return_offsets_mapping=True)
    return found["input_ids"], [float(any(inside[start:end])) for start, end in found["offset_mapping"]]


def test_a_turn_may_count_half(kit_of):
    (document,) = kit_of("chatml").encode([ASK, {**HELLO, "weight": 0.5}, MORE, BYE])
    assert set(document.weights.tolist()) == {0.0, 0.5, 1.0}


def test_a_truncated_conversation_keeps_the_mask_of_what_stays(kit_of):
    kit = kit_of("chatml_marked")
    messages = [ASK, HELLO, MORE, {"role": "assistant", "content": "In the beginning " * 20}]
    (document,) = kit.encode(messages)
    theirs = kit.theirs.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, truncation=True, max_length=48
    )
    assert len(document.token_ids) > 48
    assert document.token_ids[:48].tolist() == theirs["input_ids"]
    assert document.weights[:48].tolist() == theirs["assistant_masks"]


def test_documents_of_a_template_that_marks_turns_are_marked_as_it_marks_each_when_it_was_new(kit_of):
    kit = kit_of("thinking_marked")
    messages = [ASK, thought("Hello.", "Greet."), MORE, thought("No.", "Refuse.")]
    last, first = kit.encode(messages)
    for document, shown in ((last, messages), (first, messages[:2])):
        theirs = kit.theirs.apply_chat_template(
            shown, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        mask = np.array(theirs["assistant_masks"])
        ended = len(mask) - 1 - mask[::-1].argmax()
        begun = ended - mask[: ended + 1][::-1].argmin() + 1
        mask[:begun] = 0  # of each, the last turn alone is in the form in which it was produced
        assert document.token_ids.tolist() == theirs["input_ids"]
        assert document.weights.tolist() == mask.tolist()
    (whole,) = kit.encode(messages, earlier_turns="rendered")
    assert (
        whole.weights.tolist()
        == kit.theirs.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)[
            "assistant_masks"
        ]
    )


def test_a_marked_turn_of_weight_0_is_context(kit_of):
    kit = kit_of("chatml_marked")
    (document,) = kit.encode([ASK, {**HELLO, "train": False}, MORE, BYE])
    assert kit.trained(document) == ["No.<|im_end|>"]
    (document,) = kit.encode([ASK, {**HELLO, "train": False}, MORE, BYE], earlier_turns="rendered")
    assert kit.trained(document) == ["No.<|im_end|>"]


def test_texts_and_token_ids_are_taken_as_in_pre_training(kit_of):
    kit = kit_of("chatml")
    origin = Origin("mixed")
    end = kit.ours.end_of_text
    text, tokens = kit.encoder()([
        TextRecord(origin=origin, text="In the beginning"),
        TokenRecord(origin=origin, token_ids=[5, 6, 7], weights=[0, 0.5, 1]),
    ])  # fmt: skip
    assert text[0].token_ids.tolist() == [end, *kit.ours.encode("In the beginning"), end]
    assert text[0].weights is None
    assert tokens[0].token_ids.tolist() == [5, 6, 7]
    assert tokens[0].weights.tolist() == [0, 0.5, 1]
