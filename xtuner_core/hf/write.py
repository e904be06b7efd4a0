"""Weights out: a model streamed to a Hugging Face folder, put in place by one rename when it is complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from xtuner_core.contracts.model import Model
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.errors import UsageError
from xtuner_core.hf.shards import SHARD_BYTES, plan_shards, write_json, write_shards, write_synced
from xtuner_core.hf.targets import named_tensors
from xtuner_core.hf.tokenizer import TOKENIZER_FILES


def export(
    model: nn.Module,
    folder: Path | str,
    *,
    dtype: torch.dtype | None = None,
    tokenizer: Tokenizer | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a folder that `transformers` loads: weights, `config.json`, generation settings, tokenizer files.

    Everything goes to a hidden folder beside the target, which is renamed into place at the end: whatever
    happens, nothing half-written bears the target's name. Beyond the model, host memory holds one tensor.

    :param model: of the contract, with `config` and `weight_map()`.
    :param dtype: of floating parameters in the file; None keeps each one's own. Buffers keep theirs always.
    :param shard_bytes: the most a file holds; above that there are several, with an index.
    :returns: the absolute path of the folder.
    :raises UsageError: the folder is not empty, or cannot be written.
    """
    tensors = named_tensors(model)
    contract = cast(Model, model)
    shards = plan_shards(contract.weight_map(), tensors, dtype=dtype, shard_bytes=shard_bytes)
    largest = max((tensor for shard in shards for tensor in shard.tensors), key=lambda t: t.nbytes)
    config = _config(contract, largest.dtype)
    with replacing(Path(folder)) as partial:
        write_shards(shards, partial, tensors)
        write_json(partial / "config.json", config)
        if settings := _generation(config, tokenizer):
            write_json(partial / "generation_config.json", settings)
        if tokenizer is not None:
            _copy_tokenizer(tokenizer, partial)
    return Path(folder).resolve()


def check_target(folder: Path | str) -> None:
    """Refuse early a folder that `export` could not write: before a run, say, rather than after it.

    :raises UsageError: it is not empty, or nothing can be created where it would lie.
    """
    with _sentences(Path(folder)):
        target = Path(folder).resolve()
        _refuse_occupied(target)
        _create_beside(target).rmdir()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Lend a folder that becomes `folder` when the block ends well, and disappears when it does not.

    :raises UsageError: `folder` exists and is not an empty folder, or cannot be created.
    """
    with _sentences(folder):
        target = folder.resolve()
        _refuse_occupied(target)
        partial = _create_beside(target)
        try:
            yield partial
            _sync(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.rename(target)
            _sync(target.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


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


def _create_beside(target: Path) -> Path:
    # The nearest folder that is there: parents are created at the end, so that a failure leaves none behind.
    home = next(parent for parent in target.parents if parent.exists())
    partial = home / f".{target.name}.{secrets.token_hex(4)}.partial"
    partial.mkdir()
    return partial


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _config(model: Model, stored: torch.dtype) -> dict[str, Any]:
    word = str(stored).removeprefix("torch.")
    # `torch_dtype` is what transformers before 4.56 reads; later ones take `dtype` and drop the other.
    return {**model.config.to_hf(), "dtype": word, "torch_dtype": word}


def _generation(config: Mapping[str, Any], tokenizer: Tokenizer | None) -> dict[str, Any]:
    end = config.get("eos_token_id") if tokenizer is None else tokenizer.end_of_text
    if end in (None, []):
        return {}
    begin = config.get("bos_token_id")
    return {"eos_token_id": end} | ({} if begin is None else {"bos_token_id": begin})


def _copy_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        if (tokenizer.folder / name).is_file():
            write_synced(folder / name, [(tokenizer.folder / name).read_bytes()])
