"""The files of a checkpoint: which tensor goes where, and the writing of it, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from xtuner_core.contracts.weights import Part, WeightEntry, WeightMap
from xtuner_core.durable import write_synced
from xtuner_core.hf.agreement import Agreement
from xtuner_core.hf.boxes import piece_of
from xtuner_core.hf.checkpoint import INDEX, SINGLE
from xtuner_core.hf.header import StoredTensor
from xtuner_core.hf.placed import Placed, create_file, write_pieces
from xtuner_core.hf.targets import region

SHARD_BYTES = 5_000_000_000
"""What `transformers` and the Hub's tools were made for."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file to be written: its tensors, in their order in the file, and where each lies in the model."""

    name: str
    tensors: tuple[StoredTensor, ...]
    entries: tuple[WeightEntry, ...]


def plan_shards(weight_map: WeightMap, whole: Mapping[str, Tensor], *, shard_bytes: int) -> list[Shard]:
    """Divide the map's tensors, in its order, into files of at most `shard_bytes` of data.

    A tensor that is larger than that has a file of its own. The plan is the same on every rank.

    :param whole: tensors with the shapes of the undivided model and the dtypes of the files, on any device.
    """
    groups: list[list[WeightEntry]] = [[]]
    filled = 0
    for entry in weight_map.entries:
        size = region(entry, whole).nbytes
        if groups[-1] and filled + size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(entry)
        filled += size
    names = [f"model-{n:05d}-of-{len(groups):05d}.safetensors" for n in range(1, len(groups) + 1)]
    return [
        _shard(name if len(groups) > 1 else SINGLE, group, whole) for name, group in zip(names, groups, strict=True)
    ]


def write_shards(shards: Sequence[Shard], folder: Path, parts: Mapping[str, Part], agreement: Agreement) -> None:
    """Write the files, and an index where there are several; all ranks together.

    Each rank writes those of its parts that say so, one piece on the host at a time.

    :raises OSError: they cannot be written.
    """
    agreement.lead(lambda: _create(shards, folder))
    for shard in shards:
        placed = list(_placed(shard, parts))
        if placed or agreement.leads:
            write_pieces(folder / shard.name, shard.tensors, placed)
    if len(shards) > 1 and agreement.leads:
        stored = [tensor for shard in shards for tensor in shard.tensors]
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in stored)},
            "weight_map": {tensor.key: tensor.file.name for tensor in stored},
        }
        write_json(folder / INDEX, index)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """One JSON object, readable by people."""
    write_synced(file, [(json.dumps(content, indent=2, sort_keys=True) + "\n").encode()])


def _shard(name: str, entries: Sequence[WeightEntry], whole: Mapping[str, Tensor]) -> Shard:
    # Widest dtype first, so that every tensor is aligned to its own size: readers map the file into memory.
    ordered = sorted(entries, key=lambda entry: -whole[entry.parameter].dtype.itemsize)
    stored: list[StoredTensor] = []
    end = 0
    for entry in ordered:
        view = region(entry, whole)
        start, end = end, end + view.nbytes
        stored.append(StoredTensor(entry.hf_name, Path(name), view.dtype, tuple(view.shape), start, end))
    return Shard(name, tuple(stored), tuple(ordered))


def _create(shards: Sequence[Shard], folder: Path) -> None:
    for shard in shards:
        create_file(folder / shard.name, shard.tensors)


def _placed(shard: Shard, parts: Mapping[str, Part]) -> Iterator[Placed]:
    for entry, stored in zip(shard.entries, shard.tensors, strict=True):
        part = parts.get(entry.parameter)
        piece = piece_of(entry, part) if part is not None and part.writes else None
        if piece is not None:
            yield stored, piece
