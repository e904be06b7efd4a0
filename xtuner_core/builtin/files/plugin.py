"""Offers the datasets jsonl, parquet and text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xtuner_core.api import DatasetProvider, PluginInfo, Provider, hookimpl

_HOME = "xtuner_core.builtin.files"

JSONL: DatasetProvider[Any] = DatasetProvider(
    name="jsonl",
    factory=f"{_HOME}.jsonl:JsonlCorpus",
    config=f"{_HOME}.config:JsonlConfig",
    suffixes=(".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst"),
    summary="JSON Lines: texts, conversations or token ids, one a line; also compressed",
)
PARQUET: DatasetProvider[Any] = DatasetProvider(
    name="parquet",
    factory=f"{_HOME}.parquet:ParquetCorpus",
    config=f"{_HOME}.config:ParquetConfig",
    suffixes=(".parquet",),
    summary="Parquet: texts, conversations or token ids, one a row",
)
TEXT: DatasetProvider[Any] = DatasetProvider(
    name="text",
    factory=f"{_HOME}.text:TextFilesCorpus",
    config=f"{_HOME}.config:TextConfig",
    suffixes=(".txt", ".txt.gz", ".txt.zst"),
    summary="plain text: a document is a file, a paragraph, a line, or what stands between separators",
)


@hookimpl
def xtuner_plugin() -> PluginInfo:
    """Say what this plugin is."""
    return PluginInfo(contract="1.0", summary="datasets in local files")


@hookimpl
def xtuner_providers() -> Iterable[Provider[Any]]:
    """Offer the datasets."""
    return [JSONL, PARQUET, TEXT]
