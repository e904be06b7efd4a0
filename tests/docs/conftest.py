"""The pages of the documentation, and the fenced blocks in them.

A block is marked by a comment on the line above it: `<!-- runs -->` is run by `test_blocks.py`, `<!-- writes: NAME -->`
is saved there under that name first, and `<!-- file: PATH -->` says that the block is quoted from that file of the
repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    mark: str
    """`runs`, `writes: NAME`, `file: PATH`, or empty."""
    language: str
    text: str


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def pages() -> dict[Path, str]:
    """Every page by its file: the documentation, and what stands beside the code."""
    beside = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
    folders = ("docs", "contrib", "plugins", "kernels")
    found = [*beside, *(file for folder in folders for file in sorted((ROOT / folder).rglob("*.md")))]
    return {file: file.read_text(encoding="utf-8") for file in found}


@pytest.fixture(scope="session")
def documentation(pages: dict[Path, str]) -> str:
    """All pages below docs/ in one text."""
    return "\n".join(text for file, text in pages.items() if ROOT / "docs" in file.parents)


@pytest.fixture(scope="session")
def blocks(pages: dict[Path, str]) -> dict[Path, list[Block]]:
    """The fenced blocks of each page, in order."""
    return {
        file: [Block(m["mark"] or "", m["language"], m["text"]) for m in _BLOCK.finditer(text)]
        for file, text in pages.items()
    }
