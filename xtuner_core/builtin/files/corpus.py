"""What the corpora of files share: parts made of files, shards made of their pieces, a fingerprint of contents."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from xtuner_core.builtin.files.config import FilesConfig
from xtuner_core.builtin.files.paths import find_files, refuse_shared
from xtuner_core.contracts.dataset import BrokenRecord, Record, Shard, Split
from xtuner_core.data.reading.contents import opened, remembered, stamp
from xtuner_core.data.reading.rows import RULES
from xtuner_core.errors import DataError

SHARD_BYTES = 16 * 1024 * 1024
"""Size of a piece, about; a single record may make it larger."""

Piece = Mapping[str, Any]
"""Plain data: `bytes`, `first` (number of the first line or row), and what the kind needs to find it."""


class FilesCorpus(ABC):
    """A corpus of local files. What is found out about each is remembered in `cache`.

    :param config: of a subclass's own kind.
    :param cache: folder for what can be made again.
    """

    suffixes: ClassVar[Sequence[str]]
    """Which files of a folder are meant."""
    kind: ClassVar[str]
    """What a scan looks for, with all that decides its outcome."""
    tokenizer: Path | None = None

    def __init__(self, config: FilesConfig, *, cache: Path) -> None:
        self.config = config
        self.cache = cache

    @cached_property
    def files(self) -> Mapping[Split, Sequence[Path]]:
        """The files of each part; those of a part that is a share of the other are the same."""
        train = find_files(self.config.path, self.suffixes)
        if self.config.held_out_path is None:
            return {"train": train, "held_out": train if self.config.held_out_fraction else []}
        held_out = find_files(self.config.held_out_path, self.suffixes)
        refuse_shared(train, held_out)
        return {"train": train, "held_out": held_out}

    def fingerprint(self) -> str:
        """Contents of the files in their order, and settings; neither their names nor their places."""
        settings = {key: value for key, value in asdict(self.config).items() if key not in ("path", "held_out_path")}
        contents = {split: [self._found(file)["sha256"] for file in files] for split, files in self.files.items()}
        text = json.dumps([RULES, type(self).__name__, settings, contents], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def shards(self, split: Split) -> Sequence[Shard]:
        """Pieces of about 16 MiB in the order of the files.

        :raises DataError: a file is missing, unreadable, empty or not of its kind.
        """
        found: list[Shard] = []
        for file in self.files[split]:
            about = self._found(file)
            self.check(file)
            for piece in about["pieces"]:
                place = {**piece, "file": str(file), "stamp": about["stamp"]}
                found.append(Shard(index=len(found), bytes=piece["bytes"], place=place))
        return found

    def _found(self, file: Path) -> Mapping[str, Any]:
        return remembered(file, self.cache, self.kind, partial(self.scan, file))

    def read(self, split: Split, shard: Shard) -> Iterator[Record | BrokenRecord]:
        """The records of a piece that belong to a part."""
        path = Path(shard.place["file"])
        with opened(path) as file:
            now = stamp(file)
        if now != list(shard.place["stamp"]):
            raise DataError(f"{path} changed after the run looked at it", fix="leave it alone, then start again")
        return self.records(path, shard.place, split)

    @property
    def fraction(self) -> float:
        """Share of the records of a file that are held out."""
        return self.config.held_out_fraction

    @abstractmethod
    def scan(self, path: Path, file: Any) -> dict[str, Any]:
        """Read a file once: `sha256`, `stamp`, and its `pieces`.

        :raises DataError: it is empty or not of its kind.
        """

    def check(self, path: Path) -> None:  # noqa: B027 (there may be nothing to check)
        """Refuse a file that these settings cannot read; a quick look.

        :raises DataError: it has not the keys that are looked for.
        """

    @abstractmethod
    def records(self, path: Path, piece: Piece, split: Split) -> Iterator[Record | BrokenRecord]:
        """The records of a piece that belong to a part."""
