"""Counts over a dataset, in one pass and in bounded memory: kinds, lengths, what is broken."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xtuner_core.contracts.dataset import BrokenRecord, Record
    from xtuner_core.data.encoding.encoded import Encoded, Encoder

GROUP = 256
"""Records that are encoded together."""
FIRST = 10
"""Broken records that are named."""
BARS = 12


@dataclass(slots=True)
class Counts:
    """What was found in one part; a length takes 8 bytes, a record no more."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Records by kind: texts, conversations, tokens, broken."""
    roles: Counter[str] = field(default_factory=Counter)
    """Messages by role."""
    lengths: array[int] = field(default_factory=lambda: array("q"))
    """Of each document: tokens, or characters where there is no tokenizer."""
    trained: int = 0
    """Tokens that are targets."""
    broken: Counter[str] = field(default_factory=Counter)
    """Broken records by reason, numbers in it left out."""
    first: list[str] = field(default_factory=list)
    """The first broken records, each with file, line and reason."""
    sample: Record | None = None
    """The first record that is not broken."""

    def add(self, records: Iterable[Record | BrokenRecord], encoder: Encoder | None) -> None:
        """Count records."""
        for group in _groups(records):
            answers: list[Any] = [(record,) for record in group] if encoder is None else encoder(group)
            for record, answer in zip(group, answers, strict=True):
                self._count(record, answer)

    def _count(self, record: Record | BrokenRecord, answer: Any) -> None:
        from xtuner_core.contracts.dataset import BrokenRecord, ChatRecord, TextRecord, TokenRecord

        if isinstance(answer, BrokenRecord) or isinstance(record, BrokenRecord):
            return self._break(answer if isinstance(answer, BrokenRecord) else record)
        kinds = {TextRecord: "texts", ChatRecord: "conversations", TokenRecord: "token ids"}
        self.kinds[kinds[type(record)]] += 1
        self.sample = self.sample or record
        if isinstance(record, ChatRecord):
            self.roles.update(str(message.get("role")) for message in record.messages)
        for document in answer:
            self._measure(document)
        return None

    def _measure(self, document: Encoded | Record) -> None:
        from xtuner_core.data.encoding.encoded import Encoded

        if not isinstance(document, Encoded):
            self.lengths.append(_characters(document))
            return
        tokens = len(document.token_ids)
        self.lengths.append(tokens)
        self.trained += tokens - 1 if document.weights is None else int((document.weights[1:] != 0).sum())

    def _break(self, record: Any) -> None:
        self.kinds["broken"] += 1
        self.broken[re.sub(r"\d+", "N", record.reason)] += 1
        if len(self.first) < FIRST:
            self.first.append(f"{record.origin}: {record.reason}")

    def figures(self) -> dict[str, float]:
        """Sum, mean and percentiles of the lengths; nothing where there are none."""
        import numpy as np

        if not self.lengths:
            return {}
        values = np.frombuffer(self.lengths, dtype=np.int64)
        shares = dict(
            zip(("min", "median", "p90", "p99", "max"), np.percentile(values, [0, 50, 90, 99, 100]), strict=True)
        )
        return {"sum": float(values.sum()), "mean": float(values.mean()), **{k: float(v) for k, v in shares.items()}}

    def histogram(self) -> list[tuple[int, int, int]]:
        """Documents by length: from, below, how many; widths grow by powers of two."""
        import numpy as np

        if not self.lengths:
            return []
        values = np.frombuffer(self.lengths, dtype=np.int64)
        top = max(1, int(values.max())).bit_length()
        edges = [0, *(1 << power for power in range(max(0, top - BARS), top + 1))]
        counts, _ = np.histogram(values, bins=edges)
        rows = list(zip(edges, edges[1:], counts.tolist(), strict=False))
        first = next(index for index, row in enumerate(rows) if row[2])
        return rows[first:]


def _groups(records: Iterable[Record | BrokenRecord]) -> Iterator[list[Record | BrokenRecord]]:
    group: list[Record | BrokenRecord] = []
    for record in records:
        group.append(record)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


def _characters(record: Any) -> int:
    from xtuner_core.contracts.dataset import ChatRecord, TextRecord

    if isinstance(record, TextRecord):
        return len(record.text)
    if isinstance(record, ChatRecord):
        return sum(len(content) for m in record.messages if isinstance(content := m.get("content"), str))
    return len(record.token_ids)
