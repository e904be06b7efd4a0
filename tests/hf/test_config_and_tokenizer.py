"""config.json and tokenizer.json: what is read, and the sentence where it cannot be."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from xtuner_core.errors import DataError
from xtuner_core.hf.config import read_config
from xtuner_core.hf.tokenizer import load_tokenizer

END = "<|endoftext|>"


@pytest.fixture
def folder(tmp_path):
    """A byte-level tokenizer without merges that asks for truncation and padding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write(folder, name, content):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_configuration_is_read_from_folder_or_file(tmp_path):
    write(tmp_path, "config.json", {"model_type": "toy", "hidden_size": 3})
    assert read_config(tmp_path) == read_config(tmp_path / "config.json") == {"model_type": "toy", "hidden_size": 3}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "holds no config.json"),
        ("{", "is not valid JSON.*line 1"),
        ("\xff", "is not valid JSON"),
        ("[1]", "holds a JSON list, not an object"),
        ("{}", "has no model_type"),
        ('{"model_type": 3}', "has no model_type"),
    ],
)
def test_a_bad_configuration_is_refused(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=complaint) as caught:
        read_config(tmp_path)
    assert caught.value.fix


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        read_config(tmp_path / "nowhere")


def test_reading_a_configuration_imports_neither_torch_nor_numpy():
    script = "import sys, xtuner_core.hf.config; print({'torch', 'numpy', 'tokenizers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_text_survives_the_tokenizer_exactly(folder):
    write(folder, "tokenizer_config.json", {"eos_token": END})
    tokenizer = load_tokenizer(folder)
    text = "  In the beginning , God\n\tcréa \u2603 ' s  "
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode()), "neither truncated nor padded"
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, tokenizer.end_of_text]) == text
    assert tokenizer.size == 257
    assert tokenizer.end_of_text == 256
    assert tokenizer.folder == folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"eos_token": END}),
        ("tokenizer_config.json", {"eos_token": {"content": END}}),
        ("generation_config.json", {"eos_token_id": [256, 3]}),
        ("config.json", {"eos_token_id": 256}),
    ],
)
def test_the_end_of_text_is_found_in_any_of_its_places(folder, name, content):
    write(folder, name, content)
    assert load_tokenizer(folder).end_of_text == 256


def test_a_missing_or_damaged_tokenizer_is_refused(folder, tmp_path_factory):
    with pytest.raises(DataError, match=r"tokenizer.json is missing") as caught:
        load_tokenizer(tmp_path_factory.mktemp("empty"))
    assert "save_pretrained" in caught.value.fix
    with pytest.raises(DataError, match="names no end of text"):
        load_tokenizer(folder)
    write(folder, "tokenizer_config.json", {"eos_token": "<nil>"})
    with pytest.raises(DataError, match="eos_token '<nil>' unknown to"):
        load_tokenizer(folder)
    write(folder, "tokenizer.json", "{}")
    with pytest.raises(DataError, match="is not a tokenizer"):
        load_tokenizer(folder)
