"""Offers the datasets kjv and kjv_questions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import PluginInfo, Provider, hookimpl

KJV: Provider[Any] = Provider(
    slot="dataset",
    name="kjv",
    factory="xtuner_core.builtin.kjv.dataset:open_corpus",
    summary="the King James Bible, 4 MB by chapters, with a tokenizer of 4096 ids",
)
QUESTIONS: Provider[Any] = Provider(
    slot="dataset",
    name="kjv_questions",
    factory="xtuner_core.builtin.kjv.questions:open_corpus",
    summary="4,000 questions about its verses with answers, made from the text",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="bundled text and tokenizer, so that a first run needs no download")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the text, and questions about it."""
    return [KJV, QUESTIONS]
