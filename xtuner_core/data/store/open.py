"""The stores of a run's datasets: found in the cache, or made, by one run at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from xtuner_core.contracts.dataset import Origin, Shard, Split
from xtuner_core.data.store.header import SCHEMA, Damaged
from xtuner_core.data.store.pool import encode_shards, processes
from xtuner_core.data.store.read import TokenStore
from xtuner_core.data.store.shard import Job, Piece, unusable
from xtuner_core.data.store.write import StoreWriter
from xtuner_core.errors import DataError, RunStopped

if TYPE_CHECKING:
    from xtuner_core.contracts.algorithm import Report, Services
    from xtuner_core.data.encoding.encoded import Encoder

PATIENCE = 30.0
"""Seconds between two lines about progress, or about what is waited for."""


def open_store(services: Services, encoder: Encoder, *, split: Split = "train") -> Mapping[str, TokenStore]:
    """Open the encoded documents of a part, by dataset; what the cache does not hold is made first.

    A store is made beside its place and renamed, by one run at a time: another that wants the same waits and opens
    the result. One that was cut short or damaged is made again, with a warning.

    :return: in the order of the run's datasets; one without such a part is not among them.
    :raises DataError: a record is broken and `data.broken` is `refuse`, or a file cannot be read.
    :raises UsageError: the cache cannot be written.
    """
    return {
        name: _Opener(services, encoder, name, split).open()
        for name, corpus in services.corpora.items()
        if corpus.shards(split)
    }


class _Opener:
    def __init__(self, services: Services, encoder: Encoder, dataset: str, split: Split) -> None:
        self._settings = services.data
        self._report = services.report
        self._stopping = services.stopping
        self._cache = services.cache / "tokens"
        self._dataset = dataset
        self._job = Job(
            dataset=dataset,
            corpus=services.corpora[dataset],
            split=split,
            encoder=encoder,
            vocabulary=services.tokenizer.size,
            folder=self._cache,
        )
        self._made_from = {
            "schema": SCHEMA,
            "corpus": self._job.corpus.fingerprint(),
            "encoder": encoder.fingerprint(),
            "split": split,
            "vocabulary": services.tokenizer.size,
        }
        key = hashlib.sha256(json.dumps(self._made_from, sort_keys=True).encode()).hexdigest()
        self._folder = self._cache / key[:32]

    def open(self) -> TokenStore:
        store = self._read(self._report)
        if store is None:
            with self._place(), _locked(self._folder.with_suffix(".lock"), self._report) as alone:
                # Another run may have made it meanwhile.
                store = self._read(_say_nothing)
                store = self._make(alone) if store is None else store
        header = store.header
        self._refuse_broken(header.broken, header.first_broken)
        if header.broken:
            first = [f"{Origin(file, line)}: {reason}" for file, line, reason in header.first_broken]
            counts = {"dataset": self._dataset, "skipped": sum(header.broken.values()), "of": header.records}
            self._report("data.broken", {**counts, "reasons": dict(header.broken), "first": first})
        return store

    def _read(self, report: Report) -> TokenStore | None:
        try:
            return TokenStore(self._folder) if self._folder.exists() else None
        except Damaged as error:
            report("data.cache_damaged", {"folder": str(self._folder), "reason": str(error), "then": "made again"})
            return None
        except OSError as error:
            raise unusable(self._folder, error) from error

    @contextmanager
    def _place(self) -> Iterator[None]:
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise unusable(self._cache, error) from error

    def _make(self, alone: bool) -> TokenStore:
        """Make the store beside its place.

        :param alone: this process holds the lock, so that what lies about was left by a killed one.
        """
        for left in self._cache.glob(f".{self._folder.name}.*") if alone else ():
            shutil.rmtree(left, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(dir=self._cache, prefix=f".{self._folder.name}."))
        try:
            self._write(partial)
            self._publish(partial)
        finally:
            for left in (partial, partial.with_suffix(".replaced")):
                shutil.rmtree(left, ignore_errors=True)
        return TokenStore(self._folder)

    def _write(self, partial: Path) -> None:
        pieces = partial / "pieces"
        pieces.mkdir()
        job = replace(self._job, folder=pieces)
        shards = self._job.corpus.shards(self._job.split)
        progress = _Progress(self._dataset, shards, self._report)
        count = processes(self._settings.workers, shards)
        with StoreWriter(partial, job.ids) as writer, closing(encode_shards(job, shards, count)) as made:
            for piece in made:
                if (reason := self._stopping()) is not None:
                    raise RunStopped(f"stopped ({reason}) while dataset {self._dataset} was tokenised")
                self._refuse_broken(piece.broken, piece.first_broken)
                writer.append(piece, pieces)
                progress.add(piece)
            writer.finish(self._made_from)
        pieces.rmdir()

    def _publish(self, partial: Path) -> None:
        """Give the store its place; what stands there is damaged, or good and made by a run that found no lock."""
        partial.chmod(0o755)
        if self._folder.exists():
            if self._read(_say_nothing) is not None:
                return
            if self._folder.is_dir():
                self._folder.rename(partial.with_suffix(".replaced"))
            else:
                self._folder.unlink()
        partial.rename(self._folder)

    def _refuse_broken(self, counts: Mapping[str, int], first: Sequence[tuple[str, int | None, str]]) -> None:
        if not counts or self._settings.broken == "skip":
            return
        file, line, reason = first[0]
        more = sum(counts.values()) - 1
        also = f"; {more} more are broken in what was read of dataset {self._dataset}" if more else ""
        raise DataError(
            f"{Origin(file, line)} cannot be used: {reason}{also}",
            fix="mend it, or set data.broken=skip to go on without such records",
        )


class _Progress:
    """Says every `PATIENCE` seconds how far tokenising has come."""

    def __init__(self, dataset: str, shards: Sequence[Shard], report: Report) -> None:
        self._dataset = dataset
        self._bytes = {shard.index: shard.bytes for shard in shards}
        self._report = report
        self._begun = self._said = monotonic()
        self._read, self._documents, self._tokens = 0, 0, 0

    def add(self, piece: Piece) -> None:
        """Count a piece."""
        self._read += self._bytes[piece.index]
        self._documents += piece.documents
        self._tokens += piece.tokens
        now = monotonic()
        if now - self._said >= PATIENCE:
            self._said = now
            share = self._read / max(1, sum(self._bytes.values()))
            values = {"dataset": self._dataset, "documents": self._documents, "tokens": self._tokens}
            self._report("data.tokenising", {**values, "share": round(share, 3), "seconds": round(now - self._begun)})


@contextmanager
def _locked(file: Path, report: Report) -> Iterator[bool]:
    """Hold the lock of a store, which the system takes back when a process ends, however it ends.

    :return: whether it is held; a file system that knows no locks is told of, and two runs may then do the work twice.
    """
    lock = FileLock(file, timeout=PATIENCE)
    while not lock.is_locked:
        try:
            lock.acquire()
        except Timeout:
            report("data.waiting", {"for": "another run that tokenises the same data", "lock": str(file)})
        except RuntimeError:  # filelock raises a kind of it where locks are not to be had
            report("data.no_lock", {"lock": str(file), "reason": "the file system of the cache has no locks"})
            break
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _say_nothing(event: str, values: Mapping[str, Any]) -> None:
    """Stand for a report where the same was told before."""
