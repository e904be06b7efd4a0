"""A Hugging Face tokenizer folder, read with the `tokenizers` library alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import tokenizers.models
from numpy.typing import NDArray

from xtuner_core.contracts.tokenizer import Alignment
from xtuner_core.errors import DataError
from xtuner_core.hf.align import LiteralTokenizer, align
from xtuner_core.hf.config import read_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""What belongs to a tokenizer in a checkpoint's folder; export copies those that are there."""

CHAT_TEMPLATES = "additional_chat_templates"
"""Folder of further chat templates, each a `.jinja` file, which export copies too."""


class HfTokenizer:
    """The contract's tokenizer on `tokenizers.Tokenizer`."""

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, *, end_of_text: int, folder: Path, stop_tokens: Sequence[int] = ()
    ) -> None:
        # A file may ask for truncation or padding; both would silently change what is trained on.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # It would add special tokens, which is never asked for, and cut white space off what a token stands for.
        tokenizer.post_processor = None
        self._tokenizer = tokenizer
        self.size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
        self.end_of_text = end_of_text
        self.stop_tokens: Sequence[int] = (end_of_text, *(number for number in stop_tokens if number != end_of_text))
        self.folder = folder
        self.merges = isinstance(tokenizer.model, tokenizers.models.BPE)
        added = tokenizer.get_added_tokens_decoder()
        self.special_tokens: Mapping[str, int] = {
            token.content: number for number, token in added.items() if token.special
        }

    def fingerprint(self) -> str:
        """Identify vocabulary, merges, rules and what ends a text or a turn, wherever the files lie."""
        return hashlib.sha256(f"{self.stop_tokens} {self._tokenizer.to_str()}".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without special tokens added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Ids of each text, without special tokens added."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in found]

    def align_batch(self, texts: Sequence[str]) -> list[Alignment]:
        """Ids of each text, and the characters that each id stands for."""
        return align(self._tokenizer, texts)

    def literal(self) -> LiteralTokenizer:
        """The same vocabulary and rules, for texts in which special tokens are spelled out as content."""
        return LiteralTokenizer(self._tokenizer.to_str())

    def decode(self, token_ids: Sequence[int], *, special_tokens: bool = False) -> str:
        """Text of `token_ids`, special tokens left out or as their own text; no spaces are cleaned up."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=not special_tokens)
        return text


def load_tokenizer(folder: Path | str) -> HfTokenizer:
    """Read `tokenizer.json`; the end of text is what `tokenizer_config.json` calls `eos_token`.

    Without that, it is the first `eos_token_id` of `generation_config.json` or `config.json`.

    :raises DataError: there is no `tokenizer.json`, it is damaged, or no file names an end of text.
    """
    folder = Path(folder)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise DataError(
            f"there is no tokenizer in {folder}: tokenizer.json is missing",
            fix="name a folder that holds one; transformers' save_pretrained of a fast tokenizer writes it",
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{file} is not a tokenizer: {error}", fix="fetch the file again") from error
    end_of_text = _end_of_text(folder, tokenizer)
    return HfTokenizer(tokenizer, end_of_text=end_of_text, folder=folder, stop_tokens=_stop_tokens(folder))


def _end_of_text(folder: Path, tokenizer: tokenizers.Tokenizer) -> int:
    token = _optional(folder / "tokenizer_config.json").get("eos_token")
    if isinstance(token, dict):
        token = token.get("content")
    if isinstance(token, str):
        number = tokenizer.token_to_id(token)
        if number is None:
            raise DataError(
                f"tokenizer_config.json in {folder} names an eos_token {token!r} unknown to tokenizer.json",
                fix="take both files from one tokenizer",
            )
        return int(number)
    stops = _stop_tokens(folder)
    if stops:
        return stops[0]
    raise DataError(
        f"the tokenizer in {folder} names no end of text", fix='add "eos_token" to its tokenizer_config.json'
    )


def _stop_tokens(folder: Path) -> list[int]:
    """`eos_token_id` of the first file that has one; a model's turn may end with another token than its texts."""
    for name in ("generation_config.json", "config.json"):
        found = _optional(folder / name).get("eos_token_id")
        if isinstance(found, int):
            return [found]
        if isinstance(found, list) and found:
            return [number for number in found if isinstance(number, int)]
    return []


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
