"""Compiles the sources in C where there is a compiler; without one the distribution is pure Python, and says so.

Called by hatchling for a wheel and for an editable install; ``python hatch_build.py`` compiles in place.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).parent / "src" / "xtuner_core_kernels" / "native"
# The vector units of x86-64 beyond the baseline; elsewhere a compiler refuses these and the baseline is all there is.
LEVELS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"],
}
# Products and sums contract to fused ones, but nothing is reordered: infinities and NaN stay what they are. No OpenMP:
# the library shares the threads of the runtime that PyTorch loaded, which it is handed.
FLAGS = ["-std=c11", "-O3", "-fPIC", "-shared", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=default"]


class NativeBuildHook(BuildHookInterface):
    """Puts the libraries into the wheel, which then belongs to this platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        del version
        built = compile_all()
        if not built:
            self.app.display_warning("no working C compiler: the native operators are left out")
            return
        build_data["pure_python"] = False
        # The libraries are called through ctypes: any Python of this platform can.
        build_data["tag"] = f"py3-none-{_platform()}"
        build_data["artifacts"] += [f"src/xtuner_core_kernels/native/{file.name}" for file in built]


def compile_all() -> list[Path]:
    """Compile for every level that the compiler knows; gives the libraries, none without the baseline."""
    compiler = _compiler()
    if compiler is None:
        return []
    for stale in FOLDER.glob("xck-*.so"):
        if _digest() not in stale.name:
            stale.unlink()
    built = [file for level, flags in LEVELS.items() if (file := _compile(compiler, level, flags)) is not None]
    return built if any("baseline" in file.name for file in built) else []


def _compile(compiler: list[str], level: str, flags: list[str]) -> Path | None:
    library = FOLDER / f"xck-{level}-{_digest()}.so"
    if library.exists():
        return library
    # Renamed when it is whole: another process may have the same library open.
    partial = library.with_suffix(f".{os.getpid()}.tmp")
    command = [*compiler, *FLAGS, *flags, *map(str, sorted(FOLDER.glob("*.c"))), "-o", str(partial)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.stderr.write(f"xtuner-core-kernels: {level} is left out: {done.stderr.strip()[-500:]}\n")
            return None
        partial.replace(library)
    finally:
        partial.unlink(missing_ok=True)
    return library


def _digest() -> str:
    """The same as ``library.digest``, which cannot be imported here: it needs torch."""
    sources = sorted(path for path in FOLDER.iterdir() if path.suffix in (".c", ".h"))
    return sha256(b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in sources)).hexdigest()[:16]


def _compiler() -> list[str] | None:
    """``CC`` as every build has it, else ``cc``."""
    command = shlex.split(os.environ.get("CC") or "cc")
    return command if shutil.which(command[0]) else None


def _platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    sys.stdout.writelines(f"{file}\n" for file in compile_all())
