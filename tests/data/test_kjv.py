"""The bundled King James text: complete, licensed, split without leakage, tokenised without loss."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from xtuner_core.builtin.kjv import overlap as repetition
from xtuner_core.builtin.kjv.text import (
    END_OF_TEXT,
    chapters,
    documents,
    heading,
    join_chapters,
    split_chapters,
    verses,
)
from xtuner_core.data.compression import xz_bits_per_byte

FOLDER = files("xtuner_core.builtin.kjv")
AWKWARD = "  two  spaces , don't \r\n\n\ttab é 漢字 😀 \x00 a . b !\n  end  "
LEGEND = """\
This file is provided for unrestricted use provided that this
legend is included on all tape media and as a part of the
software program in whole or part.  Users may copy, modify or
distribute this file at will.
            -- Chip Chapin, September 4, 1989
"""


@pytest.fixture(scope="module")
def train() -> list[str]:
    return documents("train")


@pytest.fixture(scope="module")
def held_out() -> list[str]:
    return documents("held_out")


def as_bytes(texts: list[str]) -> bytes:
    return "".join(texts).encode("ascii")


def test_the_whole_bible_is_there() -> None:
    every = chapters()
    books = {heading(chapter).rpartition(" ")[0] for chapter in every}
    assert (len(books), len(every), sum(len(verses(c)) for c in every)) == (66, 1189, 31102)
    assert len({heading(chapter) for chapter in every}) == 1189


def test_the_text_exceeds_four_megabytes_of_words_alone() -> None:
    assert sum(len(verse) for chapter in chapters() for verse in verses(chapter)) > 4_000_000


def test_a_document_is_a_heading_and_a_verse_a_line() -> None:
    first, last = chapters()[0], chapters()[-1]
    assert first.startswith(
        "Genesis 1\n\nIn the beginning God created the heaven and the earth.\nAnd the earth was without form"
    )
    assert last.startswith("Revelation 22\n\n")
    assert last.endswith("\nThe grace of our Lord Jesus Christ be with you all. Amen.\n")
    assert all(line == " ".join(line.split()) != "" for chapter in chapters() for line in verses(chapter))


def test_joining_and_splitting_are_inverse() -> None:
    assert split_chapters(join_chapters(chapters())) == chapters()


def test_the_licence_repeats_the_legend_of_the_source() -> None:
    licence = FOLDER.joinpath("LICENSE-TEXT").read_text(encoding="utf-8")
    assert LEGEND in licence
    assert "bible-kjv-text 4.38" in licence


def test_the_split_is_a_partition_in_canonical_order(train: list[str], held_out: list[str]) -> None:
    held = {heading(chapter) for chapter in held_out}
    assert [c for c in chapters() if heading(c) not in held] == train
    assert [c for c in chapters() if heading(c) in held] == held_out


def test_the_held_out_text_is_a_twentieth_spread_over_the_book(held_out: list[str]) -> None:
    share = len(as_bytes(held_out)) / len(as_bytes(chapters()))
    assert 0.04 < share < 0.05
    assert len(as_bytes(held_out)) > 150_000
    position = {chapter: place for place, chapter in enumerate(chapters())}
    assert [position[chapter] // 20 for chapter in held_out] == list(range(59))


def test_the_split_follows_from_its_stated_rule(held_out: list[str]) -> None:
    assert [heading(c) for c in held_out] == repetition.choose_held_out(chapters())


def test_no_held_out_chapter_repeats_the_training_text(train: list[str], held_out: list[str]) -> None:
    index = repetition.TextIndex(train)
    measured = [index.overlap(chapter) for chapter in held_out]
    assert max(m.longest_run for m in measured) <= repetition.LONGEST_SHARED_RUN
    assert max(m.shared_share for m in measured) <= repetition.LARGEST_SHARED_SHARE


def test_no_window_above_the_limit_stands_in_both_by_plain_search(train: list[str], held_out: list[str]) -> None:
    width = repetition.LONGEST_SHARED_RUN + 1
    windows = {c[i : i + width] for c in held_out for i in range(len(c) - width + 1)}
    assert not any(c[i : i + width] in windows for c in train for i in range(len(c) - width + 1))


@pytest.mark.parametrize("pair", [("Isaiah 37", "2 Kings 19"), ("Psalms 53", "Psalms 14"), ("Mark 13", "Matthew 24")])
def test_parallel_chapters_are_recognised(pair: tuple[str, str]) -> None:
    one, other = (next(c for c in chapters() if heading(c) == title) for title in pair)
    assert not repetition.overlap(one, [other]).acceptable


def test_overlap_is_exact_on_a_known_case() -> None:
    run = "".join(chr(33 + i % 90) for i in range(70))
    measured = repetition.overlap("a" * 31 + run + "b" * 20, ["x" * 17 + run + "y" * 40])
    assert measured.longest_run == 70
    assert measured.shared_share == (70 - 50 + 1) / (121 - 50 + 1)


@pytest.fixture(scope="module", params=["alone", "auto"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        folder.joinpath(name).write_bytes(FOLDER.joinpath(name).read_bytes())
    if request.param == "alone":
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    return AutoTokenizer.from_pretrained(folder)


def test_tokenising_loses_nothing(tokenizer: PreTrainedTokenizerBase, held_out: list[str]) -> None:
    for text in [AWKWARD, *held_out]:
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_end_of_text_token_is_number_zero_and_nothing_is_unknown(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert tokenizer.convert_tokens_to_ids(END_OF_TEXT) == 0
    assert tokenizer(f"{END_OF_TEXT}In").input_ids[0] == 0
    assert tokenizer.unk_token is None


def test_the_configuration_names_the_end_of_text_token() -> None:
    loaded = AutoTokenizer.from_pretrained(str(FOLDER))
    assert (loaded.eos_token, loaded.bos_token, loaded.eos_token_id) == (END_OF_TEXT, END_OF_TEXT, 0)


def test_a_token_covers_several_bytes_of_held_out_text(tokenizer: PreTrainedTokenizerBase, held_out: list[str]) -> None:
    tokens = sum(len(tokenizer(chapter).input_ids) for chapter in held_out)
    assert len(as_bytes(held_out)) / tokens > 3.0


def test_xz_spends_about_1_7_bits_on_a_held_out_byte(train: list[str], held_out: list[str]) -> None:
    assert xz_bits_per_byte(as_bytes(train), as_bytes(held_out)) == pytest.approx(1.71, abs=0.02)


def test_the_xz_figure_agrees_with_the_command(train: list[str], held_out: list[str]) -> None:
    # A tenth of the training text shows the agreement in a tenth of the time.
    before, after = as_bytes(train[:113]), as_bytes(held_out)
    assert shutil.which("xz"), "the tests need the command xz (package xz-utils)"
    growth = xz_command_size(before + after) - xz_command_size(before)
    assert xz_bits_per_byte(before, after) == pytest.approx(growth * 8 / len(after), rel=2e-3)


def xz_command_size(data: bytes) -> int:
    return len(subprocess.run(["xz", "-9e", "-c"], input=data, check=True, capture_output=True).stdout)
