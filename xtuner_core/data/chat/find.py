"""The chat templates and special tokens that a tokenizer's folder holds, found as `transformers` finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtuner_core.errors import DataError
from xtuner_core.hf.config import read_json
from xtuner_core.hf.tokenizer import CHAT_TEMPLATES

DEFAULT, TOOLS = "default", "tool_use"
"""Names that mean something: the template of a conversation, and that of one with tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFiles:
    """What a folder says about conversations."""

    folder: Path
    templates: Mapping[str, str]
    """Sources by name; empty where the tokenizer has none."""
    variables: Mapping[str, str]
    """Special tokens by role: `bos_token`, `eos_token` …"""

    def choose(self, *, tools: bool) -> str | None:
        """Name of the template for a conversation; None where there is none for it."""
        if tools and TOOLS in self.templates:
            return TOOLS
        return DEFAULT if DEFAULT in self.templates else None


def read_chat_files(folder: Path, template: str | None) -> ChatFiles:
    """Read the templates; files (`chat_template.jinja`, `additional_chat_templates/`) replace the configuration's.

    :param template: name of one of them, or a file; it takes the place of all.
    :raises DataError: it is neither, or a file cannot be read.
    """
    config = _optional(folder / "tokenizer_config.json")
    templates = _templates_in_files(folder) or _templates_in(config)
    if template is not None:
        templates = {DEFAULT: templates[template] if template in templates else _read(Path(template), templates)}
    tokens = {**_optional(folder / "special_tokens_map.json"), **config}
    return ChatFiles(folder=folder, templates=templates, variables=_special_tokens(tokens))


def _templates_in(config: Mapping[str, Any]) -> dict[str, str]:
    found = config.get("chat_template")
    if isinstance(found, str):
        return {DEFAULT: found}
    return {each["name"]: each["template"] for each in found} if isinstance(found, list) else {}


def _templates_in_files(folder: Path) -> dict[str, str]:
    more = sorted((folder / CHAT_TEMPLATES).glob("*.jinja"))
    found = {file.stem: file.read_text(encoding="utf-8") for file in more}
    main = folder / "chat_template.jinja"
    return {DEFAULT: main.read_text(encoding="utf-8"), **found} if main.is_file() else found


def _read(file: Path, templates: Mapping[str, str]) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        named = f" or one of the tokenizer's: {', '.join(sorted(templates))}" if templates else ""
        raise DataError(
            f"the chat template {file} cannot be read: {error}",
            fix=f"algorithm.chat.template takes a file{named}",
        ) from error


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Every key that names a token, and the further ones that a multimodal tokenizer adds."""
    further = config.get("extra_special_tokens")
    named = {**config, **further} if isinstance(further, dict) else config
    texts = {key: token.get("content") if isinstance(token, dict) else token for key, token in named.items()}
    return {key: text for key, text in texts.items() if key.endswith("_token") and isinstance(text, str)}


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
