"""Reading a checkpoint's `config.json`; imports no torch, because the launcher asks for its `model_type`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xtuner_core.errors import DataError


def read_config(path: Path | str) -> dict[str, Any]:
    """Read the `config.json` of a checkpoint.

    :param path: the checkpoint's folder, or the file itself.
    :raises DataError: there is none, it is not a JSON object, or it names no `model_type`.
    """
    file = _config_file(Path(path))
    config = read_json(file)
    if not isinstance(config.get("model_type"), str):
        raise DataError(
            f"{file} has no model_type, so no model can be chosen for it",
            fix='add "model_type", or choose the model by its preset',
        )
    return config


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    :raises DataError: it cannot be read, is not JSON (with the line), or is not an object.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}", fix="check its permissions") from error
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON: {error}", fix="repair the file") from error
    if not isinstance(found, dict):
        raise DataError(f"{file} holds a JSON {type(found).__name__}, not an object", fix="repair the file")
    return found


def _config_file(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"there is no {path}", fix="name the folder of a Hugging Face checkpoint")
    file = path / "config.json" if path.is_dir() else path
    if not file.exists():
        raise DataError(f"{path} holds no config.json", fix="name the folder of a Hugging Face checkpoint")
    return file
