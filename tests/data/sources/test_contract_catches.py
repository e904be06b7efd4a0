"""Each check of the suite of datasets fails on a dataset that breaks what it is for."""

from __future__ import annotations

import hashlib
import inspect
import itertools
from pathlib import Path
from typing import Any

import pytest

from xtuner_core.contracts.dataset import BrokenRecord, Origin, Shard, TextRecord
from xtuner_core.testing import DatasetContract
from xtuner_core.testing.records import check_record

SURROGATE = "\ud800"


class Lying:
    """Four texts in two shards and one that is held out, with one thing wrong."""

    tokenizer = None

    def __init__(self, fault: str, opened: int) -> None:
        self.fault = fault
        self.opened = opened
        self.reads = itertools.count()
        self.key = (lambda: 0) if fault == "pickle" else None
        self.tokenizer = Path("nowhere") if fault == "tokenizer" else None

    def fingerprint(self) -> str:
        seed = self.opened if self.fault == "fingerprint" else 0
        return hashlib.sha256(bytes(seed)).hexdigest()

    def shards(self, split: str) -> list[Shard]:
        first = int(self.fault == "index")
        return [Shard(index=number + first, bytes=4) for number in range(2 if split == "train" else 1)]

    def read(self, split: str, shard: Shard) -> Any:
        again = next(self.reads) + self.opened
        for number in range(2):
            text = f"{split} {shard.index} {number}"
            if number == 1:
                text = self.text(text, again)
            line = 10 * shard.index + number + 1 + (100 if split == "held_out" else 0)
            yield TextRecord(origin=self.origin(line), text=text)
        if self.fault == "broken":
            yield BrokenRecord(origin=Origin("lying", 99), reason="x")

    def text(self, text: str, again: int) -> str:
        wrong = {
            "surrogate": SURROGATE,
            "twice": f"{text} {again}",
            "parts": "in both",
            "shards": f"{text} {again % 2}",
        }
        return wrong.get(self.fault, text)

    def origin(self, line: int) -> Origin:
        return Origin("lying", {"line": 0, "places": 1}.get(self.fault, line))


FAULTS = {
    "surrogate": "test_it_has_records_and_each_is_well_formed",
    "line": "test_it_has_records_and_each_is_well_formed",
    "places": "test_each_record_stands_in_a_place_of_its_own",
    "broken": "test_broken_input_is_told_and_raises_nothing",
    "twice": "test_it_reads_the_same_twice",
    "index": "test_shards_are_numbered_plain_and_the_same_each_time",
    "shards": "test_shards_give_the_same_in_any_order",
    "pickle": "test_a_copy_in_another_process_reads_the_same",
    "parts": "test_no_record_is_in_both_parts",
    "fingerprint": "test_the_fingerprint_stays_while_contents_and_settings_do",
    "unchanged": "test_the_fingerprint_changes_with_a_record",
    "settings": "test_what_reads_otherwise_has_another_fingerprint",
    "tokenizer": "test_its_tokenizer_is_a_folder_if_it_has_one",
}


class Suite(DatasetContract):
    changed = False

    def change(self, folder: Path) -> bool:
        return self.changed


def call(name: str, fault: str, folder: Path) -> None:
    """Run one check on a dataset with a fault; the suite believes that it can change where that is the fault."""
    opened = itertools.count(1)
    suite = Suite()
    suite.changed = fault == "unchanged"
    given = {
        "opened": lambda cache: Lying(fault, next(opened)),
        "others": [Lying("twice" if fault == "settings" else "", 3)],
        "folder": folder,
    }
    check = getattr(suite, name)
    check(**{key: given[key] for key in inspect.signature(check).parameters})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_dataset_with_a_fault_fails_the_check_that_is_for_it(fault, tmp_path):
    call(FAULTS[fault], "", tmp_path)
    with pytest.raises((AssertionError, AttributeError, TypeError) if fault == "pickle" else AssertionError):
        call(FAULTS[fault], fault, tmp_path)


def test_every_check_has_a_dataset_that_fails_it():
    checks = {name for name in vars(DatasetContract) if name.startswith("test_")}
    assert checks == set(FAULTS.values())


def test_a_record_of_no_kind_is_none():
    with pytest.raises(AssertionError):
        check_record({"text": "a mapping"})
