"""The bundled text as a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from xtuner_core.builtin.kjv.text import documents
from xtuner_core.contracts.dataset import Split


class KjvCorpus:
    """One document a chapter, in canonical order."""

    def __init__(self) -> None:
        self.tokenizer: Path | None = Path(str(files(__package__)))

    def texts(self, split: Split) -> Iterator[str]:
        """Yield the chapters of a part."""
        return iter(documents(split))


def open_corpus(config: None) -> KjvCorpus:
    """Open the bundled text; there is nothing to configure."""
    del config
    return KjvCorpus()
