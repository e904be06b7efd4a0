"""What the operating system knows of processor and memory."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def chip_name() -> str:
    """Name the processor as its maker writes it; the architecture where that is not known."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def memory_bytes() -> int:
    """Physical memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def resident_bytes() -> int:
    """Physical memory of this process; its peak where the system tells only that."""
    return _status("VmRSS") or _rusage_peak()


def resident_peak_bytes() -> int:
    """Most physical memory of this process since `reset_resident_peak`."""
    return _status("VmHWM") or _rusage_peak()


def reset_resident_peak() -> bool:
    """Start the peak anew; says whether the system let us (Linux, `man 5 proc`, clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    if not _STATUS.exists():
        return 0
    lines = [line for line in _STATUS.read_text().splitlines() if line.startswith(name + ":")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def _rusage_peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
