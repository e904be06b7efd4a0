"""What a rank that fails leaves behind: which error, at which step and operation, with its traceback."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from xtuner_core.engine.ranks.heartbeat import Beat, read_beat
from xtuner_core.errors import XTunerCoreError
from xtuner_core.launch.files import RankFiles

FAILED = 70
"""Exit code of a rank that left its last words: EX_SOFTWARE of sysexits.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWords:
    """Of a rank that raised."""

    type: str
    """Class of the error."""
    message: str
    """Without what to do about it."""
    foreseen: bool = False
    """Whether the error is one of `xtuner_core.errors`."""
    fix: str = ""
    notes: tuple[str, ...] = ()
    step: int = 0
    operation: str = ""
    time: float = 0.0
    """Seconds since the epoch."""
    traceback: str = ""


@contextmanager
def kept_words(run: Path, rank: int) -> Iterator[None]:
    """Write down whatever error passes; of several blocks around each other the innermost one's words are kept."""
    files = RankFiles(run, rank)
    try:
        yield
    except Exception as error:
        leave_words(files.failure, error, read_beat(files.heartbeat))
        raise


def leave_words(file: Path, error: BaseException, beat: Beat | None) -> None:
    """Write an error down, unless another was before; a disk that takes nothing hides no error.

    Where it is the one that was written down before, what has been noted of it since is added.
    """
    notes, told = tuple(getattr(error, "__notes__", ())), "".join(traceback.format_exception(error))
    earlier = read_words(file)
    if earlier is None:
        words = _words(error, beat, notes, told)
    elif earlier.type == type(error).__name__:
        words = replace(earlier, notes=notes, traceback=told)
    else:
        return
    with suppress(OSError):
        file.write_text(json.dumps(asdict(words), indent=1) + "\n", encoding="utf-8")


def _words(error: BaseException, beat: Beat | None, notes: tuple[str, ...], told: str) -> LastWords:
    return LastWords(
        type=type(error).__name__,
        message=error.message if isinstance(error, XTunerCoreError) else str(error),
        foreseen=isinstance(error, XTunerCoreError),
        fix=error.fix if isinstance(error, XTunerCoreError) else "",
        notes=notes,
        step=0 if beat is None else beat.step,
        operation="" if beat is None else beat.operation,
        time=time.time(),
        traceback=told,
    )


def read_words(file: Path) -> LastWords | None:
    """What a rank left; None where it left nothing, or died over it."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return LastWords(**{**content, "notes": tuple(content["notes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
