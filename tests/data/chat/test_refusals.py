"""Conversations that cannot be trained on, each with a reason that a person can act on; and text that spells tokens."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, Origin, TextRecord
from xtuner_core.data.chat.config import ChatConfig
from xtuner_core.data.encoding.chat import ChatEncoder
from xtuner_core.errors import DataError
from xtuner_core.hf.tokenizer import load_tokenizer

ASK = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello."}
PICTURE = {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {}}]}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "sum", "arguments": {}}}]}
REASONED = {**HELLO, "reasoning_content": "Greet."}


@pytest.mark.parametrize(
    ("style", "messages", "reason"),
    [
        ("inst", [ASK, ASK, HELLO], "the chat template refuses it: user and assistant must take turns"),
        ("headers", [{"role": "wizard", "content": "?"}, HELLO], "refuses it: unknown role wizard"),
        ("chatml", [], "the conversation has no messages"),
        ("chatml", [ASK], "no assistant message to train on"),
        ("chatml", [ASK, {**HELLO, "weight": 0}], "weight of every assistant message .* is 0"),
        ("chatml", [ASK, {**HELLO, "weight": -1}], r"message 2 has `weight: -1`; it is a number, 0 or more"),
        ("chatml", [ASK, {**HELLO, "weight": float("nan")}], "message 2 has `weight: nan`"),
        ("chatml", [ASK, {**HELLO, "train": 1}], "message 2 has `train: 1`; it is true or false"),
        ("chatml", [ASK, {**HELLO, "train": True, "weight": 1}], "both `weight` and `train`"),
        ("chatml", [{**ASK, "weight": 1}, HELLO], "message 1 has role 'user' and a weight above 0"),
        ("chatml", [PICTURE, HELLO], "images given to a text model: part 2 of message 1 is of type `image_url`"),
        ("chatml", [{"role": "user", "content": [{"type": "input_audio"}]}, HELLO], "sound given to a text model"),
        ("chatml", [{"role": "user", "content": [{"type": "video"}]}, HELLO], "video given to a text model"),
        ("chatml", [{"role": "user", "content": [{"type": "file"}]}, HELLO], "part 1 of message 1 is not a text part"),
        ("chatml", [{"role": "user", "content": {"text": "Hi"}}, HELLO], "neither text nor a list of parts"),
        ("chatml", ["Hi", HELLO], "message 1 is not an object with a `role`"),
        ("chatml", [{"content": "Hi"}, HELLO], "message 1 is not an object with a `role`"),
        ("chatml", [ASK, {**CALL, "tool_calls": [{"function": {}}]}], "message 2 has a tool call without the name"),
        ("inst", [ASK, CALL], "leaves out the tool call 'sum' of message 2"),
        ("chatml", [ASK, REASONED], "leaves out the reasoning of message 2"),
        ("chatml", [ASK, {"role": "assistant", "content": "\udc80"}], "lone surrogate, U\\+DC80"),
        ("chatml", [ASK, {"role": "assistant", "content": "a\ufdd0"}], "noncharacter U\\+FDD0"),
        ("chatml", [{"role": "user"}, {"role": "assistant", "content": 3}], "neither text nor a list"),
    ],
)
def test_a_conversation_that_cannot_be_trained_on_says_why(style, messages, reason, kit_of):
    found = kit_of(style).reason(messages)
    assert re.search(reason, found), found


def test_tools_that_the_template_leaves_out_are_named(kit_of):
    tool = {"type": "function", "function": {"name": "sum"}}
    assert "leaves out the tool 'sum'" in kit_of("inst").reason([ASK, HELLO], tools=[tool])
    assert "tool 1 is not an object" in kit_of("chatml").reason([ASK, HELLO], tools=["sum"])


def test_an_option_cannot_stand_for_the_conversation(kit_of):
    assert "`tools` cannot be a variable" in kit_of("chatml").reason([ASK, HELLO], options={"tools": []})


def test_a_broken_conversation_leaves_its_neighbours_alone(kit_of):
    kit = kit_of("chatml")
    good, bad = (ChatRecord(origin=Origin("f", n), messages=m) for n, m in enumerate([[ASK, HELLO], [ASK]]))
    gone = BrokenRecord(origin=Origin("f", 9), reason="not JSON")
    first, second, third, fourth = kit.encoder()([good, bad, gone, good])
    assert first[0].token_ids.tolist() == fourth[0].token_ids.tolist()
    assert second.origin == bad.origin
    assert third is gone


def test_a_prompt_that_the_rendered_turn_lacks_is_refused(tmp_path, kit_of):
    """DeepSeek-R1's opens `<think>`, and drops what an earlier answer thought."""
    file = tmp_path / "r1.jinja"
    file.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    reason = kit_of("thinking").reason([ASK, HELLO], template=str(file))
    assert "asks for message 2 with '<think>\\n' but renders it with 'Hello.<|im_end|>'" in reason
    assert "algorithm.chat.template" in reason


def test_a_failing_template_is_blamed(tmp_path, kit_of):
    file = tmp_path / "wrong.jinja"
    file.write_text("{{ messages[0].content + 1 }}")
    assert "cannot render it: TypeError" in kit_of("chatml").reason([ASK, HELLO], template=str(file))
    file.write_text("{{ messages.__class__.__mro__ }}")
    assert "refuses it: access to attribute '__class__'" in kit_of("chatml").reason([ASK, HELLO], template=str(file))
    file.write_text("\n{% if %}")
    with pytest.raises(DataError, match="line 2, is not a chat template"):
        kit_of("chatml").encoder(template=str(file))
    with pytest.raises(DataError, match=r"absent\.jinja cannot be read") as caught:
        kit_of("chatml").encoder(template=str(tmp_path / "absent.jinja"))
    assert "a file or one of the tokenizer's: default" in caught.value.fix


def test_without_a_template_conversations_are_broken_and_texts_are_not(tmp_path, kit_of):
    folder = copy(kit_of("chatml").folder, tmp_path, chat_template=None)
    encoder = ChatEncoder(load_tokenizer(folder), ChatConfig())
    origin = Origin("f")
    chat, text = encoder([ChatRecord(origin=origin, messages=[ASK, HELLO]), TextRecord(origin=origin, text="Hi")])
    assert chat.reason == f"the tokenizer in {folder} has no chat template; set algorithm.chat.template=FILE"
    assert len(text) == 1


def test_templates_are_found_as_transformers_finds_them(tmp_path, kit_of):
    named = [{"name": "rag", "template": "rag"}, {"name": "tool_use", "template": "tools {{ tools }}"}]
    folder = copy(kit_of("chatml").folder, tmp_path, chat_template=named)
    names = load_and_ask(folder, [ASK, HELLO])
    assert "several chat templates and no default; set algorithm.chat.template to one of rag, tool_use" in names
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ raise_exception('with tools') }}")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('plain') }}")
    assert load_and_ask(folder, [ASK, HELLO]).endswith("plain")
    assert load_and_ask(folder, [ASK, HELLO], tools=({"name": "sum"},)).endswith("with tools")
    assert load_and_ask(folder, [ASK, HELLO], template="tool_use").endswith("with tools")


def load_and_ask(folder, messages, *, tools=(), **settings):
    encoder = ChatEncoder(load_tokenizer(folder), ChatConfig(**settings))
    (found,) = encoder([ChatRecord(origin=Origin("f"), messages=messages, tools=tools)])
    return found.reason


def copy(folder, tmp_path, **changes):
    target = tmp_path / "copy"
    shutil.copytree(folder, target)
    file = target / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return target
