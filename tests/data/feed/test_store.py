"""The store: what goes in comes out, and what was damaged is noticed and made again."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xtuner_core.contracts.dataset import BrokenRecord, Origin, TextRecord, TokenRecord
from xtuner_core.data.store import header, open_store
from xtuner_core.errors import DataError, UsageError

WEIGHTS = st.sampled_from([None, (0.0, 1.0), (0.0, 0.5, 1.0, 2.25)])


@st.composite
def token_records(draw: st.DrawFn) -> list[TokenRecord]:
    records = []
    for line in range(1, draw(st.integers(1, 12)) + 1):
        ids = draw(st.lists(st.integers(0, 59_999), min_size=1, max_size=20))
        kinds = draw(WEIGHTS)
        weights = kinds and [draw(st.sampled_from(kinds)) for _ in ids]
        origin = Origin(draw(st.sampled_from(["a", "b"])), line if draw(st.booleans()) else None)
        records.append(TokenRecord(origin=origin, token_ids=ids, weights=weights))
    return records


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=token_records())
def test_every_document_comes_out_as_it_was_encoded(corpora, services, records):
    corpus = corpora.Listed(records, per_shard=3)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(services(datasets={"one": corpus}, cache=Path(folder), workers=0), corpora.Ids())["one"]
        assert len(store) == len(records)
        for index, record in enumerate(records):
            assert store[index].token_ids.tolist() == record.token_ids
            assert weights_of(store[index])[1:] == (record.weights or [1.0] * len(record.token_ids))[1:]
            assert store.origin(index) == record.origin
        assert store.lengths.tolist() == [len(record.token_ids) for record in records]


def weights_of(encoded) -> list[float]:
    return [1.0] * len(encoded.token_ids) if encoded.weights is None else encoded.weights.tolist()


@pytest.mark.parametrize(("vocabulary", "dtype"), [(65536, "uint16"), (65537, "uint32")])
def test_ids_take_as_few_bytes_as_the_vocabulary_allows(corpora, services, vocabulary, dtype):
    made = services(datasets={"one": corpora.Listed(corpora.tokens(3))}, vocabulary=vocabulary)
    store = open_store(made, corpora.Ids())["one"]
    assert (store.header.ids, (store.folder / "ids").stat().st_size) == (dtype, 17 * np.dtype(dtype).itemsize)
    assert not (store.folder / "weights").exists()


def test_a_text_keeps_its_size_in_bytes_and_may_become_several_documents(corpora, services):
    texts = [TextRecord(origin=Origin("t", 1), text="aé\n漢"), TextRecord(origin=Origin("t", 2), text="abc")]
    store = open_store(services(datasets={"one": corpora.Listed(texts)}), corpora.Ids())["one"]
    assert [each.token_ids.tolist() for each in store[:]] == [[97, 233], [28450], [97, 98, 99]]
    assert (store.header.records, store.header.documents) == (2, 3)
    assert store.header.text_bytes == store.text_bytes.sum() == len("aé\n漢abc".encode())


def test_parts_and_datasets_have_stores_of_their_own(corpora, services):
    both = corpora.Listed(corpora.tokens(4), held_out=corpora.tokens(2, base=500))
    only = corpora.Listed(corpora.tokens(1, base=900))
    made = services(datasets={"both": both, "only": only})
    assert {name: len(store) for name, store in open_store(made, corpora.Ids()).items()} == {"both": 4, "only": 1}
    assert {name: len(store) for name, store in open_store(made, corpora.Ids(), split="held_out").items()} == {
        "both": 2
    }


def test_a_second_start_reads_no_record(corpora, services):
    listed = corpora.Listed(corpora.tokens(8))
    first = open_store(services(datasets={"one": listed}), corpora.Ids())["one"]
    unreadable = corpora.Buggy(listed.train)
    unreadable.fingerprint = listed.fingerprint
    second = open_store(services(datasets={"one": unreadable}), corpora.Ids())["one"]
    assert second.folder == first.folder
    assert [each.token_ids.tolist() for each in second[:]] == [each.token_ids.tolist() for each in first[:]]


def test_other_records_another_encoder_and_another_vocabulary_are_other_stores(corpora, services):
    class Other(corpora.Ids):
        def fingerprint(self) -> str:
            return "other"

    records = corpora.tokens(8)
    changed = [*records[:-1], replace(records[-1], token_ids=[1, 2])]
    folders = {
        open_store(services(datasets={"one": corpora.Listed(each)}, vocabulary=size), encoder)["one"].folder
        for each, encoder, size in [
            (records, corpora.Ids(), 60_000),
            (changed, corpora.Ids(), 60_000),
            (records, Other(), 60_000),
            (records, corpora.Ids(), 70_000),
        ]
    }
    assert len(folders) == 4


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["ids", "documents", "weights", "files.json", "header.json"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_damage_is_noticed_told_and_mended(corpora, services, log, name, damage):
    records = [replace(record, weights=[0.5] * len(record.token_ids)) for record in corpora.tokens(8)]
    made = services(datasets={"one": corpora.Listed(records)})
    store = open_store(made, corpora.Ids())["one"]
    expected = [each.token_ids.tolist() for each in store[:]]
    whole = (store.folder / name).read_bytes()
    damage(store.folder / name)
    again = open_store(made, corpora.Ids())["one"]
    (told,) = log.of("data.cache_damaged")
    assert str(store.folder) in told["folder"]
    assert name in told["reason"]
    assert [each.token_ids.tolist() for each in again[:]] == expected
    assert (again.folder / name).read_bytes() == whole


def test_a_file_in_the_place_of_a_store_is_replaced(corpora, services, log):
    made = services(datasets={"one": corpora.Listed(corpora.tokens(8))})
    folder = open_store(made, corpora.Ids())["one"].folder
    shutil.rmtree(folder)
    folder.write_text("no store")
    assert len(open_store(made, corpora.Ids())["one"]) == 8
    assert len(log.of("data.cache_damaged")) == 1


def test_of_a_very_large_file_blocks_all_over_it_are_compared(tmp_path, monkeypatch):
    file = header.SummedFile(tmp_path / "large")
    for value in range(64):
        file.write(bytes([value]) * (header.BLOCK // 4))
    expected = file.close()
    assert len(expected.blocks) == 16
    assert list(header.chosen_blocks(5000, header.WHOLE + 1))[:3] == [0, 4, 9]
    assert list(header.chosen_blocks(5000, header.WHOLE + 1))[-1] == 4999
    assert len(header.chosen_blocks(5000, header.WHOLE + 1)) == header.SAMPLES
    assert list(header.chosen_blocks(5000, header.WHOLE)) == list(range(5000))


def broken(line: int, reason: str) -> BrokenRecord:
    return BrokenRecord(origin=Origin("bad.jsonl", line), reason=reason)


def with_broken(corpora):
    records = corpora.tokens(10)
    records[1] = broken(2, "not JSON (Expecting ',' delimiter at column 17)")
    records[2] = broken(3, "not JSON (Expecting value at column 1)")
    records[9] = broken(10, "key 3 is missing")
    return corpora.Listed(records)


def test_a_broken_record_is_refused_by_file_line_and_reason_and_nothing_is_kept(corpora, services, tmp_path):
    with pytest.raises(DataError) as caught:
        open_store(services(datasets={"one": with_broken(corpora)}), corpora.Ids())
    assert "bad.jsonl:2 cannot be used: not JSON (Expecting ',' delimiter at column 17)" in caught.value.message
    assert "1 more" in caught.value.message
    assert "data.broken=skip" in caught.value.fix
    assert list((tmp_path / "cache" / "tokens").glob("[!.]*[!k]")) == []


def test_broken_records_that_are_skipped_are_counted_by_kind_and_the_first_are_named(corpora, services, log):
    made = services(datasets={"one": with_broken(corpora)}, broken="skip")
    for _ in range(2):  # tokenised, and from the cache
        store = open_store(made, corpora.Ids())["one"]
        assert (store.header.records, len(store)) == (10, 7)
        assert store.header.broken == {"not JSON": 2, "key N is missing": 1}
    told = log.of("data.broken")
    assert [(each["skipped"], each["of"]) for each in told] == [(3, 10)] * 2
    assert told[0]["first"][-1] == "bad.jsonl:10: key 3 is missing"


def test_what_was_skipped_before_is_refused_where_the_settings_now_say_so(corpora, services):
    open_store(services(datasets={"one": with_broken(corpora)}, broken="skip"), corpora.Ids())
    with pytest.raises(DataError, match=r"bad\.jsonl:2 .*2 more"):
        open_store(services(datasets={"one": with_broken(corpora)}), corpora.Ids())


def test_a_cache_that_cannot_be_used_is_refused(corpora, services, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for cache in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(UsageError) as caught:
            open_store(services(datasets={"one": corpora.Listed(corpora.tokens(3))}, cache=cache), corpora.Ids())
        assert str(cache) in caught.value.message
        assert "data.cache" in caught.value.fix


class NoLocks:
    """A lock on a file system that has none."""

    is_locked = False

    def __init__(self, file: Path, timeout: float) -> None: ...

    def acquire(self) -> None:
        raise NotImplementedError

    def release(self) -> None: ...


def test_where_the_file_system_has_no_locks_a_store_that_another_run_made_first_is_kept(
    corpora, services, log, monkeypatch
):
    monkeypatch.setattr("xtuner_core.data.store.open.FileLock", NoLocks)
    inner = services(datasets={"one": corpora.Listed(corpora.tokens(8))}, workers=0)

    class Overtaken(corpora.Ids):
        """While it encodes, another run makes the same store."""

        def __call__(self, records):
            if not found:
                found.append(open_store(inner, corpora.Ids())["one"])
                first.append((found[0].folder / "ids").stat().st_ino)
            return super().__call__(records)

    found, first = [], []
    store = open_store(inner, Overtaken())["one"]
    assert store.folder == found[0].folder
    assert (store.folder / "ids").stat().st_ino == first[0]
    assert [path.name for path in store.folder.parent.iterdir()] == [store.folder.name]
    assert len(log.of("data.no_lock")) == 2


def test_progress_is_told_from_time_to_time(corpora, services, log, monkeypatch):
    monkeypatch.setattr("xtuner_core.data.store.open.PATIENCE", 0.0)
    open_store(services(datasets={"one": corpora.Listed(corpora.tokens(8))}), corpora.Ids())
    told = [{name: value for name, value in each.items() if name != "seconds"} for each in log.of("data.tokenising")]
    assert told == [
        {"dataset": "one", "documents": 4, "tokens": 29, "share": 0.5},
        {"dataset": "one", "documents": 8, "tokens": 58, "share": 1.0},
    ]


def test_what_a_killed_run_left_is_cleared_away(corpora, services, tmp_path):
    made = services(datasets={"one": corpora.Listed(corpora.tokens(3))})
    folder = open_store(made, corpora.Ids())["one"].folder
    left = folder.with_name(f".{folder.name}.abc")
    folder.rename(left)
    open_store(made, corpora.Ids())
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.lock"]
