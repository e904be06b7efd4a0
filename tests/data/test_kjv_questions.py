"""The dataset kjv_questions: one question a conversation, from the text's own split, by a template of its own."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from xtuner_core.builtin.kjv.questions import Questions, pairs
from xtuner_core.builtin.kjv.text import documents
from xtuner_core.data.chat.config import ChatConfig
from xtuner_core.data.encoding.chat import ChatEncoder
from xtuner_core.hf.tokenizer import load_tokenizer

FOLDER = Questions().tokenizer


@pytest.fixture(scope="module")
def records():
    corpus = Questions()
    return {
        split: [record for shard in corpus.shards(split) for record in corpus.read(split, shard)]
        for split in ("train", "held_out")
    }


def test_there_are_some_thousand_and_no_held_out_answer_stands_in_the_training_text(records):
    assert (len(records["train"]), len(records["held_out"])) == (4048, 200)
    text = "\n".join(documents("train"))
    known = [answer for _, answer in pairs("held_out") if len(answer) > 60 and answer in text]
    assert known == []


def test_answers_follow_in_the_text_what_the_question_quotes(records):
    text = "\n".join(documents("train"))
    for question, answer in list(pairs("train"))[::50]:
        quoted = question.partition("? ")[2]
        joint = "\n" if question.startswith("Which verse") else " "
        assert f"{quoted}{joint}{answer}" in text


def test_the_answer_and_its_end_are_trained_on_as_transformers_marks_them(records):
    tokenizer = load_tokenizer(FOLDER)
    theirs = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    chosen = records["train"][::400]
    for record, (encoded,) in zip(chosen, ChatEncoder(tokenizer, ChatConfig())(chosen), strict=True):
        marked = theirs.apply_chat_template(
            list(record.messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert encoded.token_ids.tolist() == marked["input_ids"]
        assert np.array_equal(encoded.weights, marked["assistant_masks"])
        assert tokenizer.decode(encoded.token_ids[encoded.weights > 0].tolist()) == record.messages[1]["content"]
