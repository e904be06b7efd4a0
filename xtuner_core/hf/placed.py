"""Files of tensors that ranks write together: one creates them in full size, each puts its bytes where they belong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from xtuner_core.hf.boxes import Piece, runs
from xtuner_core.hf.header import StoredTensor, header_bytes

Placed = tuple[StoredTensor, Piece]
"""A tensor of a file, and what a rank writes of it."""


def create_file(file: Path, tensors: Sequence[StoredTensor]) -> None:
    """Make a file of its final size, with its header; what it holds otherwise is zero.

    :param tensors: all of the file, in their order in it.
    :raises OSError: it cannot be written.
    """
    header = header_bytes(tensors)
    with file.open("wb") as stream:
        stream.write(header)
        stream.flush()
        os.ftruncate(stream.fileno(), len(header) + max((tensor.stop for tensor in tensors), default=0))


def write_pieces(file: Path, tensors: Sequence[StoredTensor], placed: Iterable[Placed]) -> None:
    """Write pieces into a file that was created, one on the host at a time, and wait until they are on the disk.

    :param tensors: all of the file, in their order in it.
    :param placed: each piece is cast to the dtype of its tensor in the file.
    :raises OSError: the file cannot be written.
    """
    begin = len(header_bytes(tensors))
    # Without a buffer: every run is written where it belongs.
    with file.open("r+b", buffering=0) as stream:
        for tensor, piece in placed:
            _write(stream.fileno(), begin + tensor.start, tensor, piece)
        os.fsync(stream.fileno())


def _write(descriptor: int, begin: int, tensor: StoredTensor, piece: Piece) -> None:
    size = tensor.dtype.itemsize
    host = piece.tensor.to(device="cpu", dtype=tensor.dtype).contiguous()
    data = host.reshape(-1).view(torch.uint8).numpy().data
    done = 0
    for first, length in runs(piece.index, tensor.shape):
        _write_all(descriptor, data[done : done + length * size], begin + first * size)
        done += length * size
    assert done == len(data), f"{tensor.key}: wrote {done} of {len(data)} bytes"


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    # One call takes 2 GiB at most, and less where a signal comes in between or the disk is nearly full.
    while len(data):
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
