"""Tokenising in several processes: the same bits whatever their number, none left, none lost without a word."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from xtuner_core.contracts.dataset import Shard
from xtuner_core.data.store import open_store, pool
from xtuner_core.data.store.shard import Job
from xtuner_core.errors import ConfigError, DataError, RunError, RunStopped

IMPORTS = """
import sys, xtuner_core.data.store.worker, xtuner_core.data.encoding.text
print(*sorted({"torch", "transformers", "omegaconf", "pydantic"} & sys.modules.keys()))
"""


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_bits_of_a_store_do_not_depend_on_the_number_of_processes(corpora, services, tmp_path):
    records = corpora.tokens(30)
    records[7] = corpora.broken("numbers.jsonl", 8, "a reason")
    records[22] = replace(records[22], weights=[0.0, 1.0, 1.0])  # in the middle of a shard; none before, none after
    stores = [
        open_store(
            services(datasets={"one": corpora.Listed(records)}, cache=tmp_path / str(n), workers=n, broken="skip"),
            corpora.Ids(),
        )["one"]
        for n in (0, 2)
    ]
    assert content(stores[0].folder) == content(stores[1].folder)
    assert len(stores[0]) == 29
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_reported_with_its_shard_and_leaves_nothing(corpora, services, tmp_path):
    made = services(datasets={"one": corpora.Deadly(corpora.tokens(20))}, workers=2)
    with pytest.raises(RunError) as caught:
        open_store(made, corpora.Ids())
    assert "dataset one was killed by SIGKILL at shard 2 (first 8)" in caught.value.message
    assert "data.workers" in caught.value.fix
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_ends_too_soon_is_the_error_that_the_corpus_raised(corpora, services, tmp_path, workers):
    made = services(datasets={"one": corpora.Cut(corpora.tokens(20))}, workers=workers)
    with pytest.raises(DataError) as caught:
        open_store(made, corpora.Ids())
    assert (caught.value.message, caught.value.fix) == ("corpus.jsonl.gz ends in the middle", "fetch it again")
    assert_nothing_left(tmp_path)


def test_a_bug_is_reported_with_its_shard_and_where_it_came_from(corpora, services):
    made = services(datasets={"one": corpora.Buggy(corpora.tokens(20))}, workers=2)
    with pytest.raises(RunError, match="shard 0") as caught:
        open_store(made, corpora.Ids())
    assert "ZeroDivisionError: a bug of the corpus" in caught.value.message
    assert "feed_corpora.py" in caught.value.message


def test_a_corpus_that_cannot_be_sent_is_refused_with_the_way_out(corpora, services):
    corpus = corpora.Listed(corpora.tokens(20))
    corpus.handle = (number for number in ())
    with pytest.raises(RunError, match="cannot be sent to other processes") as caught:
        open_store(services(datasets={"one": corpus}, workers=2), corpora.Ids())
    assert "data.workers=0" in caught.value.fix


def assert_nothing_left(tmp_path: Path) -> None:
    assert multiprocessing.active_children() == []
    assert [path.suffix for path in (tmp_path / "cache" / "tokens").iterdir()] == [".lock"]


def test_no_more_shards_are_begun_than_are_allowed_ahead_of_the_first_unfinished(corpora, tmp_path):
    corpus = corpora.Slow([corpora.marked(tmp_path)] * 40, per_shard=1)
    job = Job(dataset="one", corpus=corpus, split="train", encoder=corpora.Ids(), vocabulary=99, folder=tmp_path)
    with closing(pool.encode_shards(job, corpus.shards("train"), 2)) as pieces:
        assert next(pieces).index == 0
        read = {int(file.name.partition("-")[2]) for file in tmp_path.glob("read-*")}
        assert read == set(range(2 * pool.AHEAD))
    assert multiprocessing.active_children() == []


def test_little_data_starts_no_process_and_much_one_a_core():
    cores = len(os.sched_getaffinity(0))
    much = [Shard(index=index, bytes=pool.LITTLE // 2) for index in range(cores + 1)]
    assert pool.processes(None, [Shard(index=0, bytes=10)] * 9) == 0
    assert pool.processes(None, much) == cores
    assert pool.processes(3, [Shard(index=0, bytes=10)] * 9) == 3
    assert pool.processes(8, much[:2]) == 2
    assert pool.processes(0, much) == 0


def test_a_daemonic_process_tokenises_on_its_own_and_refuses_to_start_others(monkeypatch):
    monkeypatch.setattr(pool.multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    much = [Shard(index=index, bytes=pool.LITTLE) for index in range(4)]
    assert pool.processes(None, much) == pool.processes(0, much) == 0
    with pytest.raises(ConfigError, match=r"data\.workers=2 .*daemonic"):
        pool.processes(2, much)


def test_a_process_that_tokenises_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_stop_is_heeded_between_two_pieces_and_leaves_no_half_made_store(corpora, services, tmp_path):
    made = services(datasets={"one": corpora.Listed(corpora.tokens(9), per_shard=3)}, workers=0)
    asked = iter([None, "SIGTERM"])
    with pytest.raises(RunStopped, match=r"stopped \(SIGTERM\) while dataset one was tokenised"):
        open_store(replace(made, stopping=lambda: next(asked)), corpora.Ids())
    assert [path.suffix for path in (tmp_path / "cache" / "tokens").iterdir()] == [".lock"]
    assert len(open_store(made, corpora.Ids())["one"]) == 9
