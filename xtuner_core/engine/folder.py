"""A run's folder and the small files that it writes there, each in one piece."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from xtuner_core.durable import write_whole
from xtuner_core.errors import UsageError


def make_folder(output: Path, label: str) -> Path:
    """Make `<output>/<time>-<label>`, with a number behind it where two runs start in one second.

    :raises UsageError: it cannot be made there.
    """
    stem = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{label}"
    for number in count(1):
        folder = output / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not output.is_dir():
                raise UsageError(f"output={output} is not a folder", fix="set it to one") from None
        except OSError as error:
            raise unwritable(folder, error) from error
        else:
            return folder.resolve()
    raise AssertionError


def use_folder(folder: Path) -> Path:
    """Take a folder that the caller chose; it may exist.

    :raises UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder.resolve()


def write_text(file: Path, text: str) -> None:
    """Write a file that is there whole or not at all.

    :raises UsageError: its folder cannot be written.
    """
    try:
        write_whole(file, text.encode())
    except OSError as error:
        raise unwritable(file, error) from error


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Write plain data; what JSON does not know is written as its string."""
    write_text(file, json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")


def read_summary(run: Path) -> dict[str, Any]:
    """A run's `summary.json`; empty where there is none, or none that can be read."""
    try:
        found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def unwritable(path: Path, error: OSError) -> UsageError:
    """The error of a file or folder that cannot be written."""
    return UsageError(
        f"{path} cannot be written: {error.strerror or error}", fix="set output=DIR to a folder that you may write to"
    )
