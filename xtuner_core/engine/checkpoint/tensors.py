"""Named tensors in one safetensors file, written and read one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from xtuner_core.contracts.weights import Part
from xtuner_core.durable import write_synced
from xtuner_core.errors import ContractError
from xtuner_core.hf.agreement import Agreement
from xtuner_core.hf.boxes import Piece, wholes_of
from xtuner_core.hf.header import WORDS, StoredTensor, header_bytes
from xtuner_core.hf.placed import create_file, write_pieces
from xtuner_core.hf.read import read_box
from xtuner_core.hf.wholes import agreed_wholes


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of any device; one is copied to the host at a time.

    :raises ContractError: one has a dtype that safetensors does not know.
    :raises OSError: the file cannot be written.
    """
    write_synced(file, _chunks(tensors, _places(tensors, file)))


def write_parts(file: Path, parts: Mapping[str, Part], agreement: Agreement) -> None:
    """Write whole tensors of which ranks hold parts, all ranks together, to the file that one process would write.

    :raises ContractError: one has a dtype that safetensors does not know.
    :raises OSError: the file cannot be written, on any rank.
    """
    stored = _places(agreed_wholes(wholes_of(parts), agreement), file)
    agreement.lead(lambda: create_file(file, stored))
    pieces = [(p, Piece.of(parts[p.key])) for p in stored if p.key in parts and parts[p.key].writes]
    placed = [(place, piece) for place, piece in pieces if piece is not None]
    if placed or agreement.leads:
        write_pieces(file, stored, placed)


def read_tensors(file: Path, parts: Mapping[str, Part] | None = None) -> dict[str, Tensor]:
    """Read tensors, on the CPU.

    :param parts: boxes of the tensors that are wanted, by name; None reads every tensor, whole.
    """
    with safe_open(file, framework="pt", device="cpu") as source:
        if parts is None:
            return {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118 - no mapping
        there = set(source.keys())
        return {name: _read_part(source, name, part) for name, part in parts.items() if name in there}


def _read_part(source: Any, name: str, part: Part) -> Tensor:
    if not part.tensor.numel():
        return torch.empty_like(part.tensor, device="cpu")
    return read_box(source, name, tuple(slice(a, a + n) for a, n in zip(part.start, part.tensor.shape, strict=True)))


def first_unfit(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first tensor that holds NaN or an infinity; None where all are finite."""
    named = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    # One answer for all, so that a device is waited for once.
    finite = [_is_finite(tensor) for _, tensor in named]
    if not finite or bool(torch.stack([each.to(finite[0].device) for each in finite]).all()):
        return None
    return next(name for (name, _), fine in zip(named, finite, strict=True) if not fine)


def first_unfit_of(file: Path) -> str | None:
    """Like `first_unfit`, of a file, one tensor in memory at a time."""
    with safe_open(file, framework="pt", device="cpu") as source:
        for name in source.keys():  # noqa: SIM118 - no mapping
            if first_unfit([(name, source.get_tensor(name))]) is not None:
                return str(name)
    return None


def _is_finite(tensor: Tensor) -> Tensor:
    # An eight-bit format has no arithmetic of its own; every value of it is one of float32.
    wide = tensor.detach() if tensor.dtype.itemsize > 1 else tensor.detach().float()
    return torch.isfinite(wide).all()


def _places(tensors: Mapping[str, Tensor], file: Path) -> Sequence[StoredTensor]:
    stored: list[StoredTensor] = []
    end = 0
    # Widest dtype first, so that every tensor is aligned to its own size.
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        if tensor.dtype not in WORDS:
            word = str(tensor.dtype).removeprefix("torch.")
            raise ContractError(f"{name} has dtype {word}, which no checkpoint holds", fix="save it in another one")
        start, end = end, end + tensor.numel() * tensor.dtype.itemsize
        stored.append(StoredTensor(name, file, tensor.dtype, tuple(tensor.shape), start, end))
    return stored


def _chunks(tensors: Mapping[str, Tensor], stored: Sequence[StoredTensor]) -> Iterator[bytes | memoryview]:
    yield header_bytes(stored)
    for place in stored:
        host = tensors[place.key].detach().to("cpu").contiguous()
        yield host.reshape(-1).view(torch.uint8).numpy().data
