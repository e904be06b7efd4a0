"""Tokenizer folders with a chat template, read by us and by transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tokenizers
import transformers

from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, Origin
from xtuner_core.data.chat.config import ChatConfig
from xtuner_core.data.encoding.chat import ChatEncoder
from xtuner_core.data.encoding.encoded import Encoded
from xtuner_core.hf.tokenizer import HfTokenizer, load_tokenizer

TEMPLATES = Path(__file__).parent / "templates"
KJV = Path(__file__).parents[3] / "xtuner_core" / "builtin" / "kjv" / "tokenizer.json"
ORIGIN = Origin("chats.jsonl", 7)


class Style(NamedTuple):
    """The special tokens of a template in `templates/`, written in the style of a well-known model."""

    tokens: tuple[str, ...]
    eos: str
    bos: str | None = None
    stops: tuple[str, ...] = ()
    """What generation_config.json names besides `eos`."""
    plain: tuple[str, ...] = ()
    """Added tokens that are not special."""


STYLES = {
    "untrimmed": Style(("<|im_start|>", "<|im_end|>"), eos="<|im_end|>"),
    "thinking_marked": Style(("<|im_start|>", "<|im_end|>"), eos="<|im_end|>", plain=("<think>", "</think>")),
    "chatml": Style(("<|im_start|>", "<|im_end|>"), eos="<|im_end|>", plain=("<tool_call>", "</tool_call>")),
    "chatml_marked": Style(("<|im_start|>", "<|im_end|>"), eos="<|im_end|>", plain=("<tool_call>", "</tool_call>")),
    "headers": Style(
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        eos="<|end_of_text|>",
        bos="<|begin_of_text|>",
    ),
    "thinking": Style(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), eos="<|im_end|>", plain=("<think>", "</think>")),
    "inst": Style(("<s>", "</s>", "[INST]", "[/INST]"), eos="</s>", bos="<s>"),
    "bars": Style(
        (
            "<｜begin▁of▁sentence｜>",
            "<｜end▁of▁sentence｜>",
            "<｜User｜>",
            "<｜Assistant｜>",
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁outputs▁begin｜>",
            "<｜tool▁outputs▁end｜>",
        ),
        eos="<｜end▁of▁sentence｜>",
        bos="<｜begin▁of▁sentence｜>",
    ),
    "next_header": Style(
        ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
        eos="<|endoftext|>",
        stops=("<|user|>",),
    ),
    "trailing_end": Style(
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"), eos="<|endoftext|>", stops=("<|end|>",)
    ),
}


@dataclass(frozen=True)
class Kit:
    """One style's folder, and both readers of it."""

    folder: Path
    ours: HfTokenizer
    theirs: Any

    def encoder(self, **settings: Any) -> ChatEncoder:
        return ChatEncoder(self.ours, ChatConfig(date=date.today().isoformat(), **settings))

    def encode(self, messages: list[Any], *, tools: Any = (), options: Any = None, **settings: Any) -> list[Encoded]:
        record = ChatRecord(origin=ORIGIN, messages=messages, tools=tools, options=options or {})
        (found,) = self.encoder(**settings)([record])
        assert not isinstance(found, BrokenRecord), found.reason
        return list(found)

    def reason(self, messages: list[Any], *, tools: Any = (), options: Any = None, **settings: Any) -> str:
        record = ChatRecord(origin=ORIGIN, messages=messages, tools=tools, options=options or {})
        (found,) = self.encoder(**settings)([record])
        assert isinstance(found, BrokenRecord), self.trained(found[0])
        assert found.origin == ORIGIN
        return found.reason

    def trained(self, document: Encoded) -> list[str]:
        """The text of each stretch of tokens that is trained on."""
        assert document.weights is not None
        counted = np.flatnonzero(document.weights)
        runs = np.split(counted, np.flatnonzero(np.diff(counted) > 1) + 1)
        return [self.text(document.token_ids[run]) for run in runs]

    def text(self, ids: Any) -> str:
        return self.ours.decode([int(number) for number in ids], special_tokens=True)


@pytest.fixture(scope="session")
def kit_of(tmp_path_factory) -> Callable[[str], Kit]:
    """The bundled tokenizer with the special tokens and the template of a style."""
    made: dict[str, Kit] = {}

    def make(name: str) -> Kit:
        if name not in made:
            made[name] = make_kit(STYLES[name], TEMPLATES / f"{name}.jinja", tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture
def kit(kit_of, request) -> Kit:
    """The kit of the style whose name the test is given."""
    return kit_of(request.param)


def make_kit(style: Style, template: Path, folder: Path) -> Kit:
    tokenizer = tokenizers.Tokenizer.from_file(str(KJV))
    tokenizer.add_special_tokens(list(style.tokens))
    tokenizer.add_tokens(list(style.plain))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": style.bos,
        "eos_token": style.eos,
        "clean_up_tokenization_spaces": False,
        "chat_template": template.read_text(),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    stops = [tokenizer.token_to_id(token) for token in (*style.stops, style.eos)]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    return Kit(folder, load_tokenizer(folder), theirs)
