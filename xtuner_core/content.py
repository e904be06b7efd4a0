"""A hash of a package's source, for installations whose files may change while their version stays."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

_SUFFIXES = frozenset({".py", ".yaml", ".json", ".cpp", ".cu"})


def content_hash(module: str) -> str:
    """SHA-256 over names and bytes of the source files of a module's top-level package, shortened to 16 digits.

    :param module: dotted name; nothing is imported.
    """
    spec = importlib.util.find_spec(module.partition(".")[0])
    assert spec is not None, module
    roots = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(file for root in roots for file in root.rglob("*") if file.suffix in _SUFFIXES)
    if not roots and spec.origin:
        files, roots = [Path(spec.origin)], [Path(spec.origin).parent]
    stamps = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _hash_files(tuple(map(str, roots)), stamps)


@lru_cache(maxsize=64)
def _hash_files(roots: tuple[str, ...], stamps: tuple[tuple[str, int, int], ...]) -> str:
    """The stamps are part of the key, so that a file edited in the same process is read again."""
    digest = hashlib.sha256()
    for name, _, _ in stamps:
        file = Path(name)
        root = next(root for root in roots if file.is_relative_to(root))
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
