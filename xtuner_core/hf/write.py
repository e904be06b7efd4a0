"""Weights out: a model streamed to a Hugging Face folder, put in place by one rename when it is complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from xtuner_core.contracts.model import Model
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.durable import check_creatable, whole_folder, write_synced
from xtuner_core.errors import UsageError
from xtuner_core.hf.shards import SHARD_BYTES, plan_shards, write_json, write_shards
from xtuner_core.hf.targets import named_tensors
from xtuner_core.hf.tokenizer import CHAT_TEMPLATES, TOKENIZER_FILES


def export(
    model: nn.Module,
    folder: Path | str,
    *,
    dtype: torch.dtype | None = None,
    tokenizer: Tokenizer | None = None,
    shard_bytes: int = SHARD_BYTES,
    over: bool = False,
) -> Path:
    """Write a folder that `transformers` loads: weights, `config.json`, generation settings, tokenizer files.

    Everything goes to a hidden folder beside the target, which is renamed into place at the end: whatever
    happens, nothing half-written bears the target's name. Beyond the model, host memory holds one tensor.

    :param model: of the contract, with `config` and `weight_map()`.
    :param dtype: of floating parameters in the file; None keeps each one's own. Buffers keep theirs always.
    :param shard_bytes: the most a file holds; above that there are several, with an index.
    :param over: whether a folder that is there is replaced.
    :returns: the absolute path of the folder.
    :raises UsageError: the folder is not empty, or cannot be written.
    """
    with replacing(Path(folder), over=over) as partial:
        write_model(model, partial, named_tensors(model), dtype=dtype, tokenizer=tokenizer, shard_bytes=shard_bytes)
    return Path(folder).resolve()


def write_model(
    model: nn.Module,
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    tokenizer: Tokenizer | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the files of a Hugging Face folder into a folder that is there.

    :param tensors: parameters and buffers by their name in the model, where they are to be taken from: of the model
        itself (`named_tensors`), or its master copies.
    :raises OSError: they cannot be written.
    """
    contract = cast(Model, model)
    shards = plan_shards(contract.weight_map(), tensors, dtype=dtype, shard_bytes=shard_bytes)
    largest = max((tensor for shard in shards for tensor in shard.tensors), key=lambda t: t.nbytes)
    config = _config(contract, largest.dtype)
    write_shards(shards, folder, tensors)
    write_json(folder / "config.json", config)
    if settings := _generation(config, tokenizer):
        write_json(folder / "generation_config.json", settings)
    if tokenizer is not None:
        _copy_tokenizer(tokenizer, folder)


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
    with _sentences(folder):
        target = folder.resolve()
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
