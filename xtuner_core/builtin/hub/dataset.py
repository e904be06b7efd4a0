"""A dataset of the library `datasets` as a corpus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from xtuner_core.builtin.hub.config import HubConfig
from xtuner_core.builtin.hub.loading import Loaded, load_split
from xtuner_core.contracts.dataset import BrokenRecord, Origin, Record, Shard, Split
from xtuner_core.data.reading.parts import content_of, part_of
from xtuner_core.data.reading.rows import RULES, dense, to_record
from xtuner_core.errors import DataError

SHARD_BYTES = 16 * 1024 * 1024
BATCH = 64
"""Rows that are decoded at once."""


class HubCorpus:
    """Rows of one or two splits, keys as columns; of a row only the columns that are looked at are decoded.

    Inside conversations a null stands for a key that is not there, since a table has no other way to say so. A split
    on this disk is cut into pieces of about 16 MiB; a streamed one has as many as it has files.

    :param cache: folder for what is made of local files.
    """

    tokenizer: Path | None = None

    def __init__(self, config: HubConfig, *, cache: Path) -> None:
        self.config = config
        self.cache = cache

    @cached_property
    def parts(self) -> Mapping[Split, Loaded]:
        """The split of each part; one of which a share is held out serves both.

        :raises DataError: one cannot be loaded, or has none of the columns that are looked for.
        """
        train = self._load(self.config.split)
        if self.config.held_out_split is not None:
            return {"train": train, "held_out": self._load(self.config.held_out_split)}
        return {"train": train, "held_out": train} if self.config.held_out_fraction else {"train": train}

    def _load(self, split: str) -> Loaded:
        loaded = load_split(self.config, split, cache=self.cache)
        names = loaded.rows.column_names
        if names is not None and self.config.shape(dict.fromkeys(names, True)) is None:
            lacking = self.config.lacking(dict.fromkeys(names, True)).replace("key", "column")
            raise DataError(f"{self._name(split)}: {lacking}", fix="name it: text_key, messages_key or token_ids_key")
        if names is None:
            return loaded
        return Loaded(loaded.rows.select_columns([name for name in names if name in self.config.wanted]), loaded.files)

    def _name(self, split: str) -> str:
        return f"{self.config.path} [{split}]"

    def fingerprint(self) -> str:
        """Contents of local files, commit and path of others, and settings."""
        ignored = ("path", "revision", "streaming")
        settings = {key: value for key, value in asdict(self.config).items() if key not in ignored}
        contents = {split: loaded.identity(self.cache) for split, loaded in self.parts.items()}
        return hashlib.sha256(json.dumps([RULES, settings, contents], sort_keys=True).encode()).hexdigest()

    def shards(self, split: Split) -> Sequence[Shard]:
        """Ranges of rows, or the pieces in which a stream comes.

        :raises DataError: the split cannot be loaded, or has no row.
        """
        if split not in self.parts:
            return []
        rows = self.parts[split].rows
        if self.config.streaming:
            return [Shard(index=number, bytes=0, place={"piece": number}) for number in range(rows.num_shards)]
        if not len(rows):
            raise DataError(f"{self._split(split)} is empty: it holds no record", fix="choose another split")
        each = max(1, len(rows) * SHARD_BYTES // max(1, rows.data.nbytes))
        size = rows.data.nbytes * each // len(rows)
        starts = range(0, len(rows), each)
        return [
            Shard(index=number, bytes=size, place={"first": first, "end": min(first + each, len(rows))})
            for number, first in enumerate(starts)
        ]

    def _split(self, split: Split) -> str:
        held_out = split == "held_out" and self.config.held_out_split is not None
        return self._name(str(self.config.held_out_split) if held_out else self.config.split)

    def read(self, split: Split, shard: Shard) -> Iterator[Record | BrokenRecord]:
        """The rows of a piece that belong to a part, numbered from 1 in the split, or in the piece of a stream."""
        for origin, row in self._rows(split, shard.place):
            if self._belongs(row, split):
                yield to_record(dense(row, self.config), origin, self.config)

    def _rows(self, split: Split, place: Mapping[str, Any]) -> Iterator[tuple[Origin, dict[str, Any]]]:
        rows, name = self.parts[split].rows, self._split(split)
        if self.config.streaming:
            piece = rows.shard(num_shards=rows.num_shards, index=place["piece"])
            for number, row in enumerate(piece, start=1):
                yield Origin(f"{name} piece {place['piece']}", number), row
            return
        for first in range(place["first"], place["end"], BATCH):
            columns = rows[first : min(first + BATCH, place["end"])]
            for number, values in enumerate(zip(*columns.values(), strict=True), start=first + 1):
                yield Origin(name, number), dict(zip(columns, values, strict=True))

    def _belongs(self, row: Mapping[str, Any], split: Split) -> bool:
        fraction = self.config.held_out_fraction
        return not fraction or part_of(content_of(row), fraction) == split
