"""What a tokenizer tells beside ids: places, what ends a turn, and special tokens that are spelled as text."""

from __future__ import annotations

import json
import pickle

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from xtuner_core.hf.tokenizer import load_tokenizer

END, TURN = "<|end|>", "<|turn|>"


@pytest.fixture
def folder(tmp_path):
    """Bytes, two special tokens, and a post-processor that adds one and trims what tokens stand for."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END, tokenizers.AddedToken(TURN, rstrip=True)])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 256)]),
        ]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    return tmp_path


def test_a_batch_has_the_ids_of_its_texts(folder):
    tokenizer, texts = load_tokenizer(folder), ["one", "", "zwö 🙂", f"a{TURN}  b"]
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == [tokenizer.encode(text) for text in texts]
    assert [found.token_ids.tolist() for found in tokenizer.align_batch(texts)] == list(map(tokenizer.encode, texts))


def test_every_character_belongs_to_the_tokens_that_stand_for_it(folder):
    (found,) = load_tokenizer(folder).align_batch([" ö\n"])
    assert found.starts.tolist() == [0, 1, 1, 2]
    assert found.ends.tolist() == [1, 2, 2, 3]


@pytest.mark.parametrize(
    ("files", "stops"),
    [
        ({}, (256,)),
        ({"generation_config.json": {"eos_token_id": [257, 256]}}, (256, 257)),
        ({"config.json": {"eos_token_id": 257}}, (256, 257)),
        ({"generation_config.json": {"eos_token_id": 256}, "config.json": {"eos_token_id": 257}}, (256,)),
    ],
)
def test_what_ends_a_turn_is_the_end_of_text_and_what_the_checkpoint_adds(folder, files, stops):
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    assert load_tokenizer(folder).stop_tokens == stops


def test_a_special_token_that_is_spelled_as_text_is_text(folder):
    tokenizer = load_tokenizer(folder)
    literal = tokenizer.literal()
    spelled = f"say {END}, then "
    (found,) = literal.align_batch([spelled + literal.stand_ins[TURN] + "  b"])
    as_bytes = [tokenizer.encode(character)[0] for character in spelled]
    assert found.token_ids.tolist() == [*as_bytes, 257, tokenizer.encode("b")[0]]  # the token takes spaces behind it


def test_special_tokens_are_shown_where_asked(folder):
    tokenizer = pickle.loads(pickle.dumps(load_tokenizer(folder)))
    assert tokenizer.special_tokens == {END: 256, TURN: 257}
    ids = tokenizer.encode(f"a{TURN}b{END}")
    assert tokenizer.decode(ids) == "ab"
    assert tokenizer.decode(ids, special_tokens=True) == f"a{TURN}b{END}"
