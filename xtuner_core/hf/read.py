"""Weights in: a folder of safetensors streamed into a model, once every key is accounted for both ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from xtuner_core.contracts.weights import Part, WeightMap
from xtuner_core.errors import WeightError
from xtuner_core.hf.boxes import Piece, parts_of, piece_of, wholes_of
from xtuner_core.hf.checkpoint import Checkpoint, open_checkpoint, refusal
from xtuner_core.hf.header import StoredTensor
from xtuner_core.hf.targets import named_tensors, region


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What a load did on this rank."""

    tensors: int
    """Tensors of which something was read."""
    bytes: int
    """Bytes read from the files."""
    casts: Mapping[str, int] = field(default_factory=dict)
    """Tensors whose dtype changed on the way in, counted by `"bfloat16 to float32"`."""
    ignored: tuple[str, ...] = ()
    """Keys of the checkpoint that `WeightMap.optional` allows and nothing reads."""


def read_weights(
    model: nn.Module,
    weight_map: WeightMap,
    folder: Path | str,
    *,
    parts: Mapping[str, Part] | None = None,
    whole: Mapping[str, Tensor] | None = None,
) -> LoadReport:
    """Fill a materialised model from `model.safetensors`, or from shards with an index.

    Every problem of every key is found from the headers before the first byte of a parameter is written. Host
    memory peaks at about one shard: files are mapped one at a time and read tensor by tensor. A rank that holds
    parts reads the bytes of these only.

    :param model: parameters on any device, of any floating dtype; a tensor is cast as it is copied.
    :param parts: what is filled, by the name in the model; None means the model's own parameters and buffers, whole.
    :param whole: tensors with the shapes of the undivided model, on the meta device; None takes those that `parts`
        tell, which suffices where a rank holds something of every parameter.
    :raises WeightError: a file is missing, damaged or truncated, a key missing, extra, misshapen or doubled.
    :raises ContractError: the weight map does not fit the model.
    """
    parts = parts_of(model) if parts is None else parts
    checkpoint = account(model, weight_map, folder, whole=wholes_of(parts) if whole is None else whole)
    found = {e.hf_name: piece_of(e, parts[e.parameter]) for e in weight_map.entries if e.parameter in parts}
    pieces = {name: piece for name, piece in found.items() if piece is not None}
    casts: Counter[str] = Counter()
    for file, stored in _by_file(checkpoint, pieces).items():
        casts += _copy(file, stored, pieces)
    return LoadReport(
        tensors=len(pieces),
        bytes=sum(p.tensor.numel() * checkpoint.tensors[name].dtype.itemsize for name, p in pieces.items()),
        casts=dict(casts),
        ignored=tuple(sorted(checkpoint.tensors.keys() - {entry.hf_name for entry in weight_map.entries})),
    )


def account(
    model: nn.Module, weight_map: WeightMap, folder: Path | str, *, whole: Mapping[str, Tensor] | None = None
) -> Checkpoint:
    """Compare a checkpoint's headers with what the model wants of it; no tensor is read.

    :param model: on any device, the meta device too.
    :param whole: tensors with the shapes of the undivided model, on the meta device, where the model's own are parts.
    :raises WeightError: a file is missing, damaged or truncated, a key missing, extra, misshapen or doubled.
    :raises ContractError: the weight map does not fit the model.
    """
    checkpoint, targets = open_checkpoint(Path(folder)), named_tensors(model) if whole is None else whole
    _compare(checkpoint, weight_map, {entry.hf_name: region(entry, targets) for entry in weight_map.entries})
    return checkpoint


def _compare(checkpoint: Checkpoint, weight_map: WeightMap, regions: Mapping[str, Tensor]) -> None:
    damage = list(checkpoint.problems)
    mismatches = [
        problem
        for key, target in regions.items()
        if checkpoint.complete and (problem := _mismatch(checkpoint, key, target))
    ]
    for key, stored in sorted(checkpoint.tensors.items()):
        if key not in regions and key not in weight_map.optional:
            found = list(stored.shape)
            mismatches.append(f"{stored.file.name}: {key}: extra, expected no such key, found {found}")
    if damage:
        raise refusal(checkpoint.folder, damage + mismatches, fix="fetch the files again")
    if mismatches:
        fix = "take config.json and weights from one checkpoint"
        raise refusal(checkpoint.folder, mismatches, fix=fix)


def _mismatch(checkpoint: Checkpoint, key: str, target: Tensor) -> str | None:
    stored = checkpoint.tensors.get(key)
    expected = list(target.shape)
    if stored is None:
        # A key that is named but not readable stands among the checkpoint's own problems already.
        known = key in checkpoint.named
        return None if known else f"{_files(checkpoint)}: {key}: missing, expected {expected}"
    if list(stored.shape) != expected:
        return f"{stored.file.name}: {key}: misshapen, expected {expected}, found {list(stored.shape)}"
    if stored.dtype.is_floating_point != target.dtype.is_floating_point:
        return f"{stored.file.name}: {key}: expected {_word(target.dtype)}, found {_word(stored.dtype)}"
    return None


def _files(checkpoint: Checkpoint) -> str:
    names = sorted({stored.file.name for stored in checkpoint.tensors.values()})
    return names[0] if len(names) == 1 else f"all {len(names)} files"


def _by_file(checkpoint: Checkpoint, names: Iterable[str]) -> dict[Path, list[StoredTensor]]:
    files: dict[Path, list[StoredTensor]] = {}
    for name in names:
        stored = checkpoint.tensors[name]
        files.setdefault(stored.file, []).append(stored)
    # In the order of the file, so that a disk reads forward.
    return {file: sorted(files[file], key=lambda t: t.start) for file in sorted(files)}


def _copy(file: Path, stored: Iterable[StoredTensor], pieces: Mapping[str, Piece]) -> Counter[str]:
    casts: Counter[str] = Counter()
    try:
        with safe_open(file, framework="pt", device="cpu") as source, torch.no_grad():
            for tensor in stored:
                target = pieces[tensor.key].tensor
                assert not target.is_meta, f"{tensor.key} has no memory yet"
                target.copy_(read_box(source, tensor.key, pieces[tensor.key].index))
                if tensor.dtype != target.dtype:
                    casts[f"{_word(tensor.dtype)} to {_word(target.dtype)}"] += 1
    except OSError as error:
        raise WeightError(f"{file} cannot be read: {error.strerror}", fix="check the disk") from error
    return casts


def read_box(source: Any, key: str, index: tuple[slice, ...]) -> Tensor:
    """Read a box of a tensor, and no other bytes of it.

    :param source: an open file, `safetensors.safe_open`'s.
    """
    found: Tensor = source.get_slice(key)[index] if index else source.get_tensor(key)
    return found


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
