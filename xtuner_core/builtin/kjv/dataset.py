"""The bundled text as a corpus."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from xtuner_core.builtin.kjv.text import documents
from xtuner_core.data.memory import TextCorpus


def open_corpus(config: None, *, cache: Path) -> TextCorpus:
    """Open the bundled text, one document a chapter in canonical order; there is nothing to configure."""
    del config, cache
    folder = Path(str(files(__package__)))
    return TextCorpus("kjv", documents("train"), documents("held_out"), tokenizer=folder)
