"""Weights out: a model streamed to a Hugging Face folder, put in place by one rename when it is complete."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from xtuner_core.contracts.model import Model
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.contracts.weights import Part
from xtuner_core.durable import check_creatable, whole_folder, write_synced
from xtuner_core.errors import UsageError
from xtuner_core.hf.agreement import Agreement, shared_folder
from xtuner_core.hf.boxes import parts_of, wholes_of
from xtuner_core.hf.shards import SHARD_BYTES, Shard, plan_shards, write_json, write_shards
from xtuner_core.hf.together import ALONE, Together
from xtuner_core.hf.tokenizer import CHAT_TEMPLATES, TOKENIZER_FILES
from xtuner_core.hf.wholes import agreed_wholes

Dtypes = torch.dtype | Mapping[str, torch.dtype] | None
"""Of floating tensors in a file: one for all parameters, by the tensor's name in the model, or its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """What a Hugging Face folder is to hold."""

    shards: tuple[Shard, ...]
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer: Tokenizer | None


def export(
    model: nn.Module,
    folder: Path | str,
    *,
    parts: Mapping[str, Part] | None = None,
    dtype: Dtypes = None,
    tokenizer: Tokenizer | None = None,
    shard_bytes: int = SHARD_BYTES,
    over: bool = False,
    together: Together = ALONE,
) -> Path:
    """Write a folder that `transformers` loads: weights, `config.json`, generation settings, tokenizer files.

    Everything goes to a hidden folder beside the target, which is renamed into place at the end: whatever
    happens, nothing half-written bears the target's name. Beyond the model, host memory holds one tensor. Where
    ranks hold parts all of them call this, and the files are those that one process writes.

    :param model: of the contract, with `config` and `weight_map()`.
    :param parts: what this rank holds, by the name in the model; None means the model's own parameters and buffers,
        whole.
    :param dtype: of floating parameters in the file; None keeps each one's own. Buffers keep theirs unless it names
        them.
    :param tokenizer: of the rank that leads; the others may have none.
    :param shard_bytes: the most a file holds; above that there are several, with an index.
    :param over: whether a folder that is there is replaced.
    :returns: the absolute path of the folder.
    :raises UsageError: the folder is not empty, or cannot be written, on any rank.
    """
    parts = parts_of(model) if parts is None else parts
    target = Path(folder).resolve()
    with _sentences(Path(folder)), shared_folder(_unoccupied(target, over), together) as (partial, agreement):
        files = plan_model(model, parts, agreement, dtype=dtype, tokenizer=tokenizer, shard_bytes=shard_bytes)
        write_model(files, partial, parts, agreement)
    return target


def plan_model(
    model: nn.Module,
    parts: Mapping[str, Part],
    agreement: Agreement,
    *,
    dtype: Dtypes = None,
    tokenizer: Tokenizer | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> ModelFiles:
    """Say what the files of a Hugging Face folder are to hold; all ranks together, and the same on all.

    :param parts: parameters and buffers by their name in the model, from where they are to be taken: of the model
        itself, or its master copies.
    """
    contract = cast("Model", model)
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    kinds = {name: _stored_dtype(name, part.tensor.dtype, dtype, parameters) for name, part in parts.items()}
    whole = agreed_wholes({name: tensor.to(kinds[name]) for name, tensor in wholes_of(parts).items()}, agreement)
    shards = plan_shards(contract.weight_map(), whole, shard_bytes=shard_bytes)
    largest = max((tensor for shard in shards for tensor in shard.tensors), key=lambda t: t.nbytes)
    config = _config(contract, largest.dtype)
    generation = _generation(config, tokenizer)
    return ModelFiles(shards=tuple(shards), config=config, generation=generation, tokenizer=tokenizer)


def write_model(files: ModelFiles, folder: Path, parts: Mapping[str, Part], agreement: Agreement) -> None:
    """Write the files of a Hugging Face folder into a folder that is there; all ranks together.

    :param parts: those that the files were planned for.
    :raises OSError: they cannot be written.
    """
    write_shards(files.shards, folder, parts, agreement)
    if not agreement.leads:
        return
    write_json(folder / "config.json", files.config)
    if files.generation:
        write_json(folder / "generation_config.json", files.generation)
    if files.tokenizer is not None:
        _copy_tokenizer(files.tokenizer, folder)


def check_target(folder: Path | str) -> None:
    """Refuse early a folder that `export` could not write: before a run, say, rather than after it.

    :raises UsageError: it is not empty, or nothing can be created where it would lie.
    """
    with _sentences(Path(folder)):
        target = Path(folder).resolve()
        _refuse_occupied(target)
        check_creatable(target)


@contextmanager
def replacing(folder: Path, *, over: bool = False) -> Iterator[Path]:
    """Lend a folder that becomes `folder` when the block ends well, and disappears when it does not.

    :param over: whether a folder that is there is replaced.
    :raises UsageError: `folder` exists and is not an empty folder, or cannot be created.
    """
    with _sentences(folder), _unoccupied(folder.resolve(), over) as partial:
        yield partial


@contextmanager
def _unoccupied(target: Path, over: bool) -> Iterator[Path]:
    if not over:
        _refuse_occupied(target)
    with whole_folder(target, over=over) as partial:
        yield partial


@contextmanager
def _sentences(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error.strerror or error}",
            fix="name a folder on a disk with room that you may write to",
        ) from error


def _refuse_occupied(target: Path) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        raise UsageError(f"{target} exists and is not an empty folder", fix="name another, or remove it")


def _stored_dtype(name: str, own: torch.dtype, wanted: Dtypes, parameters: Collection[str]) -> torch.dtype:
    if isinstance(wanted, Mapping):
        return wanted.get(name, own)
    return own if wanted is None or name not in parameters or not own.is_floating_point else wanted


def _config(model: Model, stored: torch.dtype) -> dict[str, Any]:
    word = str(stored).removeprefix("torch.")
    # `torch_dtype` is what transformers before 4.56 reads; later ones take `dtype` and drop the other.
    return {**model.config.to_hf(), "dtype": word, "torch_dtype": word}


def _generation(config: Mapping[str, Any], tokenizer: Tokenizer | None) -> dict[str, Any]:
    end = config.get("eos_token_id") if tokenizer is None else list(tokenizer.stop_tokens)
    if isinstance(end, list) and len(end) == 1:
        end = end[0]
    if end in (None, []):
        return {}
    begin = config.get("bos_token_id")
    return {"eos_token_id": end} | ({} if begin is None else {"bos_token_id": begin})


def _copy_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    further = sorted((tokenizer.folder / CHAT_TEMPLATES).glob("*.jinja"))
    for name in (*TOKENIZER_FILES, *(f"{CHAT_TEMPLATES}/{file.name}" for file in further)):
        if (tokenizer.folder / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            write_synced(folder / name, [(tokenizer.folder / name).read_bytes()])
