"""What a person is shown of a record is its text, with the borders of what is trained on."""

from __future__ import annotations

import subprocess
import sys

from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, Origin, TextRecord, TokenRecord
from xtuner_core.data.chat.show import show

AT = Origin("f", 1)
ASK = {"role": "user", "content": "Hi 🙂<|im_end|>"}
HELLO = {"role": "assistant", "content": "Hello 🙂."}


def test_a_conversation_is_shown_as_it_is_rendered(kit_of):
    kit = kit_of("chatml")
    (pieces,) = show(ChatRecord(origin=AT, messages=[ASK, HELLO]), kit.encoder(), kit.ours)
    assert [piece.weight for piece in pieces] == [0, 1, 0]
    assert [piece.text for piece in pieces][1:] == ["Hello 🙂.<|im_end|>", "\n"]
    assert "".join(p.text for p in pieces) == kit.theirs.apply_chat_template([ASK, HELLO], tokenize=False)
    (document,) = kit.encode([ASK, HELLO])
    assert sum(piece.tokens for piece in pieces) == len(document.token_ids)
    assert pieces[1].tokens == int(document.weights.sum())


def test_every_document_of_a_conversation_is_shown(kit_of):
    kit = kit_of("thinking")
    answer = {"role": "assistant", "content": "Hello.", "reasoning_content": "Greet."}
    documents = show(ChatRecord(origin=AT, messages=[ASK, answer, ASK, answer]), kit.encoder(), kit.ours)
    assert [[piece.weight for piece in pieces] for pieces in documents] == [[0, 1, 0], [0, 1, 0]]


def test_a_text_and_token_ids_are_shown_as_they_decode(kit_of):
    kit = kit_of("chatml")
    (text,) = show(TextRecord(origin=AT, text="In the beginning"), kit.encoder(), kit.ours)
    assert [(piece.text, piece.weight) for piece in text] == [("<|im_end|>", 0), ("In the beginning<|im_end|>", 1)]
    ids = kit.ours.encode("In the beginning")
    (tokens,) = show(
        TokenRecord(origin=AT, token_ids=ids, weights=[1, *[0.5] * (len(ids) - 1)]), kit.encoder(), kit.ours
    )
    assert [piece.weight for piece in tokens] == [0, 0.5]


def test_a_broken_record_is_answered_with_its_reason(kit_of):
    kit = kit_of("chatml")
    found = show(ChatRecord(origin=AT, messages=[]), kit.encoder(), kit.ours)
    assert isinstance(found, BrokenRecord)


def test_looking_at_data_imports_no_torch():
    line = "import sys, xtuner_core.data.chat.show, xtuner_core.hf.tokenizer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line]).returncode == 0
