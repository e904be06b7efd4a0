"""From what a person writes as `path` to files in a fixed order."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from xtuner_core.errors import DataError


def find_files(written: str | Sequence[str], suffixes: Sequence[str]) -> list[Path]:
    """The files that are meant, absolute: as named, those of a folder or a glob by their paths in order.

    :param written: files, folders, globs; a file may have any suffix.
    :param suffixes: which files of a folder or of a glob's folder count; hidden ones never do.
    :raises DataError: one means no file, or two mean the same.
    """
    names = [written] if isinstance(written, str) else list(written)
    if not names:
        raise DataError("path names no file", fix="write a file, a folder or a glob")
    files = [file for name in names for file in _one(name, suffixes)]
    twice = next((file for file in files if files.count(file) > 1), None) if len(names) > 1 else None
    if twice is not None:
        raise DataError(f"path names {twice} twice", fix="name it once; `data.epochs` reads a dataset several times")
    return files


def refuse_shared(train: Sequence[Path], held_out: Sequence[Path]) -> None:
    """Refuse to score what is trained on.

    :raises DataError: a file is in both parts.
    """
    shared = sorted(set(train) & set(held_out))
    if shared:
        raise DataError(
            f"{shared[0]} is in path and in held_out_path, so what is scored would be trained on",
            fix="keep it in one of them, or write held_out_fraction",
        )


def _one(name: str, suffixes: Sequence[str]) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        return _some(_below(path, suffixes), f"the folder {path} holds no file ending in {' or '.join(suffixes)}")
    if path.exists() or not glob.has_magic(name):
        return [path.absolute()]
    found = sorted(Path(item) for item in glob.glob(str(path), recursive=True))  # noqa: PTH207 (Path.glob takes no absolute one)
    files = [file.absolute() for file in found if file.is_file()]
    inside = [file for folder in found if folder.is_dir() and not files for file in _below(folder, suffixes)]
    return _some(files or inside, f"{name} matches no file")


def _below(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    found = (file for file in sorted(folder.rglob("*")) if file.name.lower().endswith(tuple(suffixes)))
    visible = (file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts))
    return [file.absolute() for file in visible if file.is_file()]


def _some(files: list[Path], otherwise: str) -> list[Path]:
    if not files:
        raise DataError(otherwise, fix="correct the path")
    return files
