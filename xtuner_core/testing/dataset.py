"""The contract suite of datasets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import ClassVar

import pytest

from xtuner_core.contracts.dataset import BrokenRecord, Corpus
from xtuner_core.host import Host
from xtuner_core.parts import Parts
from xtuner_core.registry import Offer
from xtuner_core.testing.records import SPLITS, check_record, content, read_part, whole
from xtuner_core.testing.suite import OfferSuite

Open = Callable[[str], Corpus]
"""Opens the dataset of a case with a cache folder of this name."""


class DatasetContract(OfferSuite):
    r"""What holds for every dataset, over a small one that `prepare` lays out.

    class TestMine(DatasetContract):
        plugin = "mine"
        configs = ({"path": "a.csv", "held_out_fraction": 0.2},)
        broken = 1

        def prepare(self, folder):
            (folder / "a.csv").write_text("text\none\ntwo\n...")

        def change(self, folder):
            (folder / "a.csv").write_text("text\none\nthree\n...")
            return True
    """

    slot: ClassVar[str] = "dataset"
    broken: ClassVar[int] = 0
    """How many records of each case cannot be read; lay out one at least, where the source can hold one."""

    def prepare(self, folder: Path) -> None:
        """Lay out what the configurations name; `folder` is the current one."""

    def change(self, folder: Path) -> bool:
        """Change one record of each case; answer False where the dataset is bundled and cannot change."""
        del folder
        return False

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder with what `prepare` lays out, the current one."""
        monkeypatch.chdir(tmp_path)
        self.prepare(tmp_path)
        return tmp_path

    @pytest.fixture(scope="class")
    @classmethod
    def composed(cls, host: Host, offered: Offer) -> list[Parts]:
        """The parts of a tiny run with the dataset of each case."""
        return [cls.parts(host, offered, case) for case in range(len(cls.configs))]

    @pytest.fixture
    def opened(self, composed: list[Parts], offered: Offer, case: int, folder: Path) -> Open:
        """Opens the dataset of a case."""
        return lambda cache: composed[case].make(f"dataset.{offered.name}", cache=folder / cache)

    @pytest.fixture
    def others(self, composed: list[Parts], offered: Offer, case: int, folder: Path) -> list[Corpus]:
        """The datasets of the other cases."""
        rest = [parts for number, parts in enumerate(composed) if number != case]
        return [parts.make(f"dataset.{offered.name}", cache=folder / "cache") for parts in rest]

    def test_it_has_records_and_each_is_well_formed(self, opened: Open) -> None:
        """Types, texts in UTF-8, origins with a file, and a line from 1 where it has lines."""
        corpus = opened("cache")
        assert read_part(corpus, "train"), "it has no record to train on"
        for split in SPLITS:
            for record in read_part(corpus, split):
                check_record(record)

    def test_each_record_stands_in_a_place_of_its_own(self, opened: Open) -> None:
        """No two records of either part have one file and line."""
        corpus = opened("cache")
        origins = [str(record.origin) for split in SPLITS for record in read_part(corpus, split)]
        assert sorted(origins) == sorted(set(origins))

    def test_broken_input_is_told_and_raises_nothing(self, opened: Open) -> None:
        """As many broken records as `prepare` laid out."""
        corpus = opened("cache")
        found = [r for split in SPLITS for r in read_part(corpus, split) if isinstance(r, BrokenRecord)]
        assert len(found) == self.broken, found

    def test_it_reads_the_same_twice(self, opened: Open) -> None:
        """In one corpus and in another, with a cache and without."""
        corpus = opened("cache")
        for split in SPLITS:
            first = list(whole(read_part(corpus, split)))
            assert list(whole(read_part(corpus, split))) == first
            assert list(whole(read_part(opened("cache"), split))) == first
            assert list(whole(read_part(opened("another"), split))) == first

    def test_shards_are_numbered_plain_and_the_same_each_time(self, opened: Open) -> None:
        """From 0, and JSON holds each."""
        corpus = opened("cache")
        for split in SPLITS:
            shards = list(corpus.shards(split))
            assert [shard.index for shard in shards] == list(range(len(shards)))
            assert all(type(shard.bytes) is int and shard.bytes >= 0 for shard in shards)
            assert all(json.loads(json.dumps(dict(shard.place))) == dict(shard.place) for shard in shards)
            assert list(opened("cache").shards(split)) == shards

    def test_shards_give_the_same_in_any_order(self, opened: Open) -> None:
        """Backwards, and two at once."""
        corpus = opened("cache")
        for split in SPLITS:
            shards = corpus.shards(split)
            alone = [list(whole(read_part(corpus, split, [shard]))) for shard in shards]
            backwards = [list(whole(read_part(opened("cache"), split, [shard]))) for shard in reversed(shards)]
            assert backwards[::-1] == alone
            assert _at_once(corpus, split) == [pair for part in alone for pair in part]

    def test_a_copy_in_another_process_reads_the_same(self, opened: Open) -> None:
        """Corpus and shards are pickled, and the copy knows them by their places alone."""
        corpus = opened("cache")
        for split in SPLITS:
            shards = corpus.shards(split)
            copy = ForkingPickler.loads(ForkingPickler.dumps((corpus, shards)))
            assert list(whole(read_part(copy[0], split, copy[1]))) == list(whole(read_part(corpus, split)))
        assert copy[0].fingerprint() == corpus.fingerprint()

    def test_no_record_is_in_both_parts(self, opened: Open) -> None:
        """Neither itself nor an equal one."""
        corpus = opened("cache")
        train, held_out = ({content(r) for r in read_part(corpus, split)} for split in SPLITS)
        assert train & held_out == set()

    def test_the_fingerprint_stays_while_contents_and_settings_do(self, opened: Open, folder: Path) -> None:
        """After reading, with another cache, and when files are touched."""
        corpus = opened("cache")
        found = corpus.fingerprint()
        assert re.fullmatch("[0-9a-f]{64}", found)
        read_part(corpus, "train")
        for file in folder.rglob("*"):
            os.utime(file, (1_000_000_000, 1_000_000_000))
        assert [c.fingerprint() for c in (corpus, opened("cache"), opened("another"))] == [found] * 3

    def test_the_fingerprint_changes_with_a_record(self, opened: Open, folder: Path) -> None:
        """Even where the cache remembers the one before."""
        before = opened("cache").fingerprint()
        changed = self.change(folder)
        assert (opened("cache").fingerprint() != before) == changed

    def test_what_reads_otherwise_has_another_fingerprint(self, opened: Open, others: Sequence[Corpus]) -> None:
        """Two of `configs` that give other records."""
        corpus = opened("cache")
        read, mine = ([list(whole(read_part(corpus, split))) for split in SPLITS], corpus.fingerprint())
        for other in others:
            same = [list(whole(read_part(other, split))) for split in SPLITS] == read
            assert same or other.fingerprint() != mine

    def test_its_tokenizer_is_a_folder_if_it_has_one(self, opened: Open) -> None:
        """With a tokenizer.json."""
        folder = opened("cache").tokenizer
        assert folder is None or (folder / "tokenizer.json").is_file()


def _at_once(corpus: Corpus, split: str) -> list[tuple[object, str]]:
    """Records of all shards, which are read side by side."""
    readers = [corpus.read(split, shard) for shard in corpus.shards(split)]  # type: ignore[arg-type]
    found: list[list[tuple[object, str]]] = [[] for _ in readers]
    going = dict(enumerate(readers))
    while going:
        for number, reader in list(going.items()):
            record = next(reader, None)
            if record is None:
                del going[number]
            else:
                found[number] += whole([record])
    return [pair for part in found for pair in part]
