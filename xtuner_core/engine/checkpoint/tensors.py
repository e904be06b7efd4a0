"""Named tensors in one safetensors file, written and read one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from xtuner_core.durable import write_synced
from xtuner_core.errors import ContractError
from xtuner_core.hf.header import WORDS, StoredTensor, header_bytes


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of any device; one is copied to the host at a time.

    :raises ContractError: one has a dtype that safetensors does not know.
    :raises OSError: the file cannot be written.
    """
    write_synced(file, _chunks(tensors, _places(tensors, file)))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read every tensor, on the CPU."""
    with safe_open(file, framework="pt", device="cpu") as source:
        return {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118 - no mapping


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
