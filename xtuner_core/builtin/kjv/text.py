"""The bundled text by documents: one chapter each, split into training and held-out text.

A document is the chapter's heading, a blank line, then a verse a line without its number:

    Genesis 1

    In the beginning God created the heaven and the earth.
    And the earth was without form, and void; ...

The split is fixed. The chapters stand in canonical order; of every full run of twenty consecutive ones a
single chapter is held out: among those that pass the limits on repetition in `overlap`, the one whose heading
has the smallest SHA-256. So the held-out text is spread over the whole book (59 chapters, 4.9 % of the bytes),
nobody picked it by hand, and no parallel passage (2 Kings 19 and Isaiah 37, the synoptic gospels) gives it
away. `held_out.txt` lists the outcome; `tools/build_kjv.py` made it and a test derives it again.
"""

from __future__ import annotations

import lzma
from functools import cache
from importlib.resources import files
from typing import Literal

Split = Literal["train", "held_out"]

END_OF_TEXT = "<|endoftext|>"
"""The tokenizer's only special token, id 0: it stands before every document."""


def documents(split: Split) -> list[str]:
    """Return the chapters of one split in canonical order, each ending with a newline, all ASCII."""
    wanted = split == "held_out"
    held_out = _held_out_headings()
    return [chapter for chapter in chapters() if (heading(chapter) in held_out) == wanted]


def chapters() -> list[str]:
    """Return all 1189 chapters in canonical order, whatever their split."""
    return split_chapters(lzma.decompress(_resource("text.xz")).decode("ascii"))


def split_chapters(text: str) -> list[str]:
    """Cut the stored text, whose headings stand between blank lines, into documents."""
    parts = text.removesuffix("\n").split("\n\n")
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [f"{title}\n\n{verses}\n" for title, verses in pairs]


def join_chapters(documents_: list[str]) -> str:
    """Invert `split_chapters`."""
    return "\n".join(documents_)


def heading(document: str) -> str:
    """Return the document's first line, such as `1 Samuel 3`."""
    return document.partition("\n")[0]


def verses(document: str) -> list[str]:
    """Return the document's verses in order."""
    return document.splitlines()[2:]


@cache
def _held_out_headings() -> frozenset[str]:
    return frozenset(_resource("held_out.txt").decode("ascii").splitlines())


def _resource(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()
