"""The files of a checkpoint: which tensor goes where, and the writing of it, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xtuner_core.contracts.weights import WeightEntry, WeightMap
from xtuner_core.durable import write_synced
from xtuner_core.hf.checkpoint import INDEX, SINGLE
from xtuner_core.hf.header import StoredTensor, header_bytes
from xtuner_core.hf.targets import region

SHARD_BYTES = 5_000_000_000
"""What `transformers` and the Hub's tools were made for."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file to be written: its tensors, in their order in the file, and where each lies in the model."""

    name: str
    tensors: tuple[StoredTensor, ...]
    entries: tuple[WeightEntry, ...]


def plan_shards(
    weight_map: WeightMap, tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None, shard_bytes: int
) -> list[Shard]:
    """Divide the map's tensors, in its order, into files of at most `shard_bytes` of data.

    A tensor that is larger than that has a file of its own.
    """
    groups: list[list[WeightEntry]] = [[]]
    filled = 0
    for entry in weight_map.entries:
        size = region(entry, tensors).numel() * _stored_dtype(entry, tensors, dtype).itemsize
        if groups[-1] and filled + size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(entry)
        filled += size
    names = [f"model-{n:05d}-of-{len(groups):05d}.safetensors" for n in range(1, len(groups) + 1)]
    return [
        _shard(name if len(groups) > 1 else SINGLE, group, tensors, dtype)
        for name, group in zip(names, groups, strict=True)
    ]


def write_shards(shards: Sequence[Shard], folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the files, and an index where there are several; one tensor is copied to the host at a time."""
    for shard in shards:
        write_synced(folder / shard.name, _chunks(shard, tensors))
    if len(shards) > 1:
        stored = [tensor for shard in shards for tensor in shard.tensors]
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in stored)},
            "weight_map": {tensor.key: tensor.file.name for tensor in stored},
        }
        write_json(folder / INDEX, index)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """One JSON object, readable by people."""
    write_synced(file, [(json.dumps(content, indent=2, sort_keys=True) + "\n").encode()])


def _shard(
    name: str, entries: Sequence[WeightEntry], tensors: Mapping[str, Tensor], dtype: torch.dtype | None
) -> Shard:
    # Widest dtype first, so that every tensor is aligned to its own size: readers map the file into memory.
    ordered = sorted(entries, key=lambda entry: -_stored_dtype(entry, tensors, dtype).itemsize)
    stored: list[StoredTensor] = []
    end = 0
    for entry in ordered:
        view, kind = region(entry, tensors), _stored_dtype(entry, tensors, dtype)
        start, end = end, end + view.numel() * kind.itemsize
        stored.append(StoredTensor(entry.hf_name, Path(name), kind, tuple(view.shape), start, end))
    return Shard(name, tuple(stored), tuple(ordered))


def _stored_dtype(entry: WeightEntry, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> torch.dtype:
    tensor = tensors[entry.parameter]
    if dtype is None or not isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
        return tensor.dtype
    return dtype


def _chunks(shard: Shard, tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    yield header_bytes(shard.tensors)
    for entry, stored in zip(shard.entries, shard.tensors, strict=True):
        host = region(entry, tensors).to(device="cpu", dtype=stored.dtype).contiguous()
        yield host.reshape(-1).view(torch.uint8).numpy().data
