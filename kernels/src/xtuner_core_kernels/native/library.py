"""The library in C: found, opened for the processor at hand, and called with the threads of PyTorch.

The distribution's build (``hatch_build.py``) compiles the sources beside this file once for each instruction set, where
there is a C compiler. A library bears the digest of the sources it was built from, so that one of other sources is
never called.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xtuner_core_kernels.operator import Use

FOLDER = Path(__file__).parent
LEVELS = ("baseline", "avx2", "avx512")
"""Instruction sets, as ``xck_level`` counts them."""


def digest(folder: Path = FOLDER) -> str:
    """What the names of the libraries built from these sources bear."""
    sources = sorted(path for path in folder.iterdir() if path.suffix in (".c", ".h"))
    return sha256(b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in sources)).hexdigest()[:16]


def library_file(level: str, folder: Path = FOLDER) -> Path:
    """Where the library of that level is or would be."""
    return folder / f"xck-{level}-{digest(folder)}.so"


@dataclass(frozen=True, slots=True)
class Library:
    """An open library."""

    level: str
    functions: ctypes.CDLL
    fork: Callable[..., Any] | None  # of PyTorch's OpenMP runtime; None where it has none of GNU's kind

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that takes threads; it says by a non-zero result that there was no memory."""
        failed = getattr(self.functions, name)(self.fork, torch.get_num_threads(), *map(_plain, arguments))
        if failed:
            raise MemoryError(f"{name} found no memory for its intermediate results")


def _plain(argument: Any) -> Any:
    """A tensor's address, 64-bit integers, 32-bit floats, and what ctypes passes as it is."""
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, bool | int):
        return ctypes.c_long(argument)
    return ctypes.c_float(argument) if isinstance(argument, float) else argument


def open_library(folder: Path = FOLDER) -> Library | str:
    """The fastest library in the folder that this processor can run, or one sentence that says why there is none."""
    baseline = library_file(LEVELS[0], folder)
    if not baseline.exists():
        return (
            "the native library was not built: no C compiler when xtuner-core-kernels was installed, or its sources "
            "changed since (install it again where `cc` is found)"
        )
    try:
        highest = ctypes.CDLL(str(baseline)).xck_level()
        level = max(rank for rank in range(highest + 1) if library_file(LEVELS[rank], folder).exists())
        functions = ctypes.CDLL(str(library_file(LEVELS[level], folder)))
    except OSError as error:
        return f"the native library cannot be loaded: {error}"
    return Library(LEVELS[level], functions, _fork())


def _fork() -> Callable[..., Any] | None:
    """``GOMP_parallel`` of the runtime that PyTorch loaded for all to see."""
    try:
        return ctypes.CDLL(None).GOMP_parallel  # type: ignore[no-any-return]
    except (OSError, AttributeError, TypeError):
        return None


@cache
def library() -> Library | str:
    """:func:`open_library`, once a process."""
    return open_library()


def native_float32(use: Use) -> str | None:
    """What every native implementation supports: float32 on a CPU, with the library and PyTorch's threads at hand."""
    if use.device != "cpu":
        return f"computes on cpu, not on {use.device}"
    if use.dtype != torch.float32:
        return f"computes in float32, not in {use.dtype}"
    found = library()
    if isinstance(found, str):
        return found
    if found.fork is None:
        return "shares the threads of GNU's OpenMP, with which this PyTorch was not built"
    return None


def call(name: str, *arguments: Any) -> None:
    """Call a function of the library; ``supports`` has seen to it that there is one."""
    found = library()
    assert isinstance(found, Library), found
    found.call(name, *arguments)
