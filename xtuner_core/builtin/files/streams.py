"""Files as streams of bytes, plain or compressed, with what goes wrong told in words."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from xtuner_core.data.reading.contents import opened
from xtuner_core.errors import DataError

COMPRESSED = (".gz", ".zst")
"""Endings of files that can only be read from their beginning."""
_KINDS = {
    b"\x1f\x8b": "gzip-compressed (name it .gz)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd (name it .zst)",
    b"PAR1": "a Parquet file (dataset.NAME.name=parquet reads it)",
    b"PK\x03\x04": "a ZIP archive",
    b"\xfd7zXZ": "compressed by xz",
    b"BZh": "compressed by bzip2",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""First bytes of files that are no text in UTF-8, and what they are."""


def is_compressed(path: Path) -> bool:
    """Whether a file can only be read from its beginning."""
    return path.name.lower().endswith(COMPRESSED)


@contextmanager
def stream(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, decompressed where its name says so.

    :raises DataError: it cannot be opened or read, a compressed one is damaged or truncated, a library is missing.
    """
    with opened(path) as file:
        try:
            yield _decompressed(file, path)
        except EOFError as error:
            raise DataError(f"{path} is truncated: it ends within its compressed data", fix=_AGAIN) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is damaged, or not compressed by gzip: {error}", fix=_AGAIN) from error


_AGAIN = "copy or download the file again"


def _decompressed(file: BinaryIO, path: Path) -> BinaryIO:
    name = path.name.lower()
    if name.endswith(".gz"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))
    return cast(BinaryIO, _Zstd(file, path)) if name.endswith(".zst") else file


class _Zstd:
    """Reads zstd through pyarrow, which notices where a stream is cut off."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._source: Any = pyarrow(path).CompressedInputStream(file, "zstd")
        self._path = path

    def read(self, size: int = -1) -> bytes:
        try:
            return bytes(self._source.read(None if size < 0 else size))
        except OSError as error:
            message = f"{self._path} is damaged or truncated, or not compressed by zstd: {error}"
            raise DataError(message, fix=_AGAIN) from error


def pyarrow(path: Path) -> Any:
    """The library pyarrow.

    :raises DataError: it is not installed.
    """
    try:
        import pyarrow as library
        import pyarrow.parquet  # an attribute of the library only then
    except ImportError as error:
        message = f"{path} is read with pyarrow, which is not installed"
        raise DataError(message, fix="pip install 'xtuner-core[parquet]'") from error
    return library


def refuse_binary(start: bytes, path: Path) -> None:
    """Refuse what is no text in UTF-8, by the first bytes of its content.

    A line that is no UTF-8 among others that are is no reason: it is a broken record.

    :raises DataError: it is another kind of file, holds NUL bytes, or no line is UTF-8.
    """
    kind = next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)
    if kind is not None:
        raise DataError(f"{path} is no text in UTF-8: it is {kind}", fix="name a file of the kind that is read")
    if b"\0" in start:
        where = start.index(b"\0")
        raise DataError(f"{path} is a binary file: byte {where} is NUL", fix="name a file of text in UTF-8")
    lines = [line for line in start.split(b"\n") if line.strip()]
    if lines and not any(_is_utf8(line, cut=line is lines[-1] and not start.endswith(b"\n")) for line in lines):
        raise DataError(f"{path} is no text in UTF-8", fix="convert it: iconv -f latin1 -t utf-8 FILE")


def _is_utf8(line: bytes, *, cut: bool) -> bool:
    """Whether a line is UTF-8, as far as it goes where it is cut off."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(line, final=not cut)
    except UnicodeDecodeError:
        return False
    return True
