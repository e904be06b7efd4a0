"""A folder of safetensors: its files, its index, and what each of them holds, from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xtuner_core.errors import DataError, WeightError
from xtuner_core.hf.config import read_json
from xtuner_core.hf.header import StoredTensor, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LISTED = 8
"""Problems that an error spells out; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a folder holds."""

    folder: Path
    tensors: dict[str, StoredTensor]
    """By key, those whose bytes lie in their file."""
    named: frozenset[str]
    """Every key that a header or the index names, those in damaged files included."""
    problems: tuple[str, ...]
    complete: bool
    """Whether every key is known, its data damaged or not: False where a lone file has no readable header."""


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the index and every header.

    :raises WeightError: there are no safetensors, two sets of them, or the index is not one.
    """
    _refuse_unsuitable(folder)
    if (folder / INDEX).is_file():
        return _open_sharded(folder, _read_index(folder / INDEX))
    header = read_header(folder / SINGLE)
    return Checkpoint(
        folder=folder,
        tensors=header.tensors,
        named=header.keys or frozenset(),
        problems=tuple(header.problems),
        complete=header.keys is not None,
    )


def refusal(folder: Path, problems: Sequence[str], *, fix: str) -> WeightError:
    """One error for all problems of a checkpoint."""
    if len(problems) == 1:
        return WeightError(f"the weights in {folder} cannot be used: {problems[0]}", fix=fix)
    lines = [f"- {problem}" for problem in problems[:LISTED]]
    if len(problems) > LISTED:
        lines.append(f"- and {len(problems) - LISTED} more")
    head = f"the weights in {folder} cannot be used, {len(problems)} problems:"
    return WeightError("\n".join([head, *lines]), fix=fix)


def _refuse_unsuitable(folder: Path) -> None:
    if not folder.is_dir():
        raise WeightError(f"there is no folder {folder}", fix="name the folder of a Hugging Face checkpoint")
    single, index = (folder / SINGLE).is_file(), (folder / INDEX).is_file()
    if single and index:
        raise WeightError(f"{folder} holds both {SINGLE} and {INDEX}", fix="remove what is out of date")
    if single or index:
        return
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
    if pickled:
        raise WeightError(
            f"{folder} holds pickled weights only ({pickled[0]}), and nothing is unpickled here",
            fix="convert them with transformers' save_pretrained, which writes safetensors",
        )
    raise WeightError(f"{folder} holds neither {SINGLE} nor {INDEX}", fix="fetch the checkpoint's weights")


def _read_index(file: Path) -> dict[str, str]:
    try:
        weight_map = read_json(file).get("weight_map")
    except DataError as error:
        raise WeightError(error.message, fix=error.fix) from error
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise WeightError(f"{file} has no weight_map of keys to file names", fix="fetch the index again")
    outside = sorted(name for name in weight_map.values() if Path(name).name != name or name in ("", ".."))
    if outside:
        raise WeightError(f"{file} names {outside[0]!r}, no file of its folder", fix="fetch the index again")
    return weight_map


def _open_sharded(folder: Path, index: dict[str, str]) -> Checkpoint:
    tensors: dict[str, StoredTensor] = {}
    problems: list[str] = []
    home: dict[str, str] = {}
    for shard in sorted(set(index.values())):
        if not (folder / shard).is_file():
            problems.append(f"{shard}: missing, though {INDEX} names it for {_first(index, shard)}")
            continue
        header = read_header(folder / shard)
        problems += header.problems
        tensors |= header.tensors
        if header.keys is not None:
            problems += _against_index(shard, header.keys, index, home)
    return Checkpoint(
        folder=folder,
        tensors=tensors,
        named=frozenset({*index, *home}),
        problems=tuple(problems),
        complete=True,
    )


def _against_index(shard: str, keys: frozenset[str], index: dict[str, str], home: dict[str, str]) -> list[str]:
    problems = []
    for key in sorted(keys):
        if key in home:
            problems.append(f"{shard}: {key}: stored a second time, first in {home[key]}")
        elif key not in index:
            problems.append(f"{shard}: {key}: not named by {INDEX}")
        home.setdefault(key, shard)
    absent = sorted(key for key, name in index.items() if name == shard and key not in keys)
    return problems + [f"{shard}: {key}: named by {INDEX}, but the file has no such tensor" for key in absent]


def _first(index: dict[str, str], shard: str) -> str:
    keys = sorted(key for key, name in index.items() if name == shard)
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
