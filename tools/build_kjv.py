"""Make the data files of xtuner_core/builtin/kjv from the Debian packages bible-kjv and bible-kjv-text 4.38.

Needs the package's command (`apt-get install bible-kjv`) and the distribution `tokenizers`:

    python tools/build_kjv.py [--vocabulary 4096] [--to xtuner_core/builtin/kjv]
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import subprocess
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from xtuner_core.builtin.kjv.overlap import choose_held_out
from xtuner_core.builtin.kjv.text import END_OF_TEXT, heading, join_chapters

VERSE = re.compile(r" +\d+ (?P<words>.*)")

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ message['role'] | capitalize + ':\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)
"""A conversation in plain words: the tokenizer has one special token, which ends every turn."""


def main() -> None:
    """Write text.xz, held_out.txt, tokenizer.json and tokenizer_config.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--to", type=Path, default=Path("xtuner_core/builtin/kjv"))
    arguments = parser.parse_args()
    chapters = read_chapters()
    held_out = choose_held_out(chapters)
    training = [chapter for chapter in chapters if heading(chapter) not in held_out]
    write_text(arguments.to, chapters, held_out)
    train_tokenizer(training, arguments.vocabulary).save(str(arguments.to / "tokenizer.json"))
    write_tokenizer_config(arguments.to)


def read_chapters() -> list[str]:
    """Print the whole Bible with the package's command and lay it out a chapter a document.

    Verse numbers go; a few doubled or trailing spaces of the source become single or none.
    """
    command = ["bible", "-l9999", "gen1:1-rev99:99"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, encoding="ascii").stdout
    chapters: list[list[str]] = []
    for line in filter(str.strip, printed.splitlines()):
        if verse := VERSE.fullmatch(line):
            chapters[-1].append(" ".join(verse["words"].split()))
        else:
            chapters.append([line.strip(), ""])
    return ["\n".join(lines) + "\n" for lines in chapters]


def write_text(folder: Path, chapters: list[str], held_out: list[str]) -> None:
    """Store the text as `xz -9e` would, and the headings of the held-out chapters."""
    text = join_chapters(chapters).encode("ascii")
    folder.joinpath("text.xz").write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    folder.joinpath("held_out.txt").write_text("\n".join(held_out) + "\n", encoding="ascii")


def train_tokenizer(training: list[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE: any text can be encoded and comes back exactly, so it needs no unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training, trainer)
    return tokenizer


def write_tokenizer_config(folder: Path) -> None:
    """Say what `transformers.AutoTokenizer` needs beside tokenizer.json."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "chat_template": CHAT_TEMPLATE,
    }
    folder.joinpath("tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
