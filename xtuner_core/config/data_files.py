"""From a file, a folder or a glob that stands where a dataset's name would to the suffix that decides who reads it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from xtuner_core.errors import UnknownName, UsageError


def is_file(spec: str, suffixes: Collection[str]) -> bool:
    """Whether a value is a path: with a `/`, a leading `.` or `~`, or a suffix that somebody reads."""
    return "/" in spec or spec.startswith((".", "~")) or suffix_of(spec, suffixes) is not None


def suffix_of(spec: str, suffixes: Collection[str]) -> str | None:
    """The longest suffix that fits a path, whatever its case."""
    fitting = [suffix for suffix in suffixes if spec.lower().endswith(suffix)]
    return max(fitting, key=len, default=None)


def absolute(spec: str) -> str:
    """The path as the plan keeps it."""
    return str(Path(spec).expanduser().absolute())


def entry_name(spec: str, suffixes: Collection[str]) -> str:
    """Name of the entry that `dataset=FILE` is short for: the file's stem, else its folder's, in lower snake case."""
    known = suffix_of(spec, suffixes)
    stem = spec.removesuffix(spec[-len(known) :]) if known else str(Path(spec).parent / Path(spec).stem)
    words = (_word(part) for part in reversed(Path(absolute(stem)).parts))
    name = next((word for word in words if word), "data")
    return name if name[0].isalpha() and name != "name" else f"data_{name}"


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def wanted_suffix(spec: str, suffixes: Collection[str]) -> str:
    """The suffix by which a reader is found; of a folder that of the files in it.

    :raises UsageError: nobody reads it, or a folder holds files of several kinds, or none.
    """
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return _suffix_in(folder, suffixes)
    suffix = suffix_of(spec, suffixes)
    if suffix is None:
        message = f"{spec} is no folder, and no installed plugin reads files of its suffix"
        raise UnknownName(message, fix=f"these are read: {', '.join(sorted(suffixes)) or 'none'}; {_SAY}")
    return suffix


_SAY = "or write dataset.NAME.name=DATASET and dataset.NAME.path=FILE, or install a plugin that reads it"


def _suffix_in(folder: Path, suffixes: Collection[str]) -> str:
    found = {suffix for file in _visible(folder) if (suffix := suffix_of(file.name, suffixes)) is not None}
    plain = {suffix for suffix in found if not any(suffix.startswith(f"{other}.") for other in found)}
    if not found:
        message = f"the folder {folder} holds no file that an installed plugin reads"
        raise UnknownName(message, fix=f"these are read: {', '.join(sorted(suffixes)) or 'none'}; {_SAY}")
    if len(plain) > 1:
        message = f"the folder {folder} holds files of several kinds: {', '.join(sorted(found))}"
        raise UsageError(message, fix="name one file or a glob, or write dataset.NAME.name and dataset.NAME.path")
    return plain.pop()


def _visible(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if not any(part.startswith(".") for part in file.relative_to(folder).parts):
            yield file
