"""A checkpoint written anew in another dtype, tensor by tensor, or copied as it is."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from xtuner_core.durable import write_synced
from xtuner_core.hf.checkpoint import INDEX, open_checkpoint, refusal
from xtuner_core.hf.config import read_json
from xtuner_core.hf.header import StoredTensor, header_bytes
from xtuner_core.hf.shards import write_json
from xtuner_core.hf.write import replacing


def copy_checkpoint(
    source: Path | str, target: Path | str, *, dtype: torch.dtype | None = None, keep: Collection[str] = ()
) -> Path:
    """Write a checkpoint's folder to another, in one piece; host memory holds one tensor at a time.

    :param dtype: of floating tensors; None keeps each one's own.
    :param keep: keys that keep their dtype in any case (buffers).
    :returns: the absolute path of `target`.
    :raises WeightError: a file of the source is missing, damaged or truncated.
    :raises UsageError: the target is not empty, or cannot be written.
    """
    source = Path(source)
    checkpoint = open_checkpoint(source)
    if checkpoint.problems:
        raise refusal(source, checkpoint.problems, fix="export from a run whose folder is whole")
    files: dict[str, list[StoredTensor]] = {}
    for tensor in checkpoint.tensors.values():
        files.setdefault(tensor.file.name, []).append(tensor)
    with replacing(Path(target)) as partial:
        for file in sorted(source.iterdir()):
            if file.is_file() and (dtype is None or file.name not in files):
                _copy(file, partial / file.name)
        if dtype is not None:
            total = sum(_convert(source / name, partial, tensors, dtype, keep) for name, tensors in files.items())
            _amend(partial, dtype, total)
    return Path(target).resolve()


def _copy(file: Path, target: Path) -> None:
    with file.open("rb") as stream:
        write_synced(target, iter(lambda: stream.read(1 << 24), b""))
    shutil.copymode(file, target)


def _convert(
    file: Path, folder: Path, tensors: Sequence[StoredTensor], dtype: torch.dtype, keep: Collection[str]
) -> int:
    """Write one file anew; returns its tensors' bytes."""
    kinds = {t.key: dtype if t.dtype.is_floating_point and t.key not in keep else t.dtype for t in tensors}
    # Widest dtype first, so that every tensor is aligned to its own size.
    ordered = sorted(tensors, key=lambda tensor: (-kinds[tensor.key].itemsize, tensor.start))
    stored: list[StoredTensor] = []
    end = 0
    for tensor in ordered:
        start, end = end, end + tensor.nbytes // tensor.dtype.itemsize * kinds[tensor.key].itemsize
        stored.append(StoredTensor(tensor.key, tensor.file, kinds[tensor.key], tensor.shape, start, end))
    write_synced(folder / file.name, _chunks(file, stored))
    return end


def _chunks(file: Path, stored: Sequence[StoredTensor]) -> Iterator[bytes | memoryview]:
    yield header_bytes(stored)
    with safe_open(file, framework="pt", device="cpu") as source:
        for tensor in stored:
            value = source.get_tensor(tensor.key).to(tensor.dtype).contiguous()
            yield value.reshape(-1).view(torch.uint8).numpy().data


def _amend(folder: Path, dtype: torch.dtype, total: int) -> None:
    """Correct what config.json and the index say of the weights."""
    word = str(dtype).removeprefix("torch.")
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "dtype": word, "torch_dtype": word})
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        write_json(folder / INDEX, {**index, "metadata": {**index.get("metadata", {}), "total_size": total}})
