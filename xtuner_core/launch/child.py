"""One rank as its supervisor holds it: a process in a session of its own, a pipe to it, the files that it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from xtuner_core.engine.ranks.heartbeat import DONE, Beat, read_beat
from xtuner_core.launch.files import RankFiles
from xtuner_core.launch.last_words import LastWords, read_words
from xtuner_core.launch.lifeline import STOP

GOOD_CODES = (0, 75)
"""Exit codes of a rank that finished, or was asked to stop and left a checkpoint."""


class Child:
    """Starts a rank.

    :param command: whole; the path of the rank's orders is its last word.
    """

    def __init__(self, files: RankFiles, command: Sequence[str]) -> None:
        self.rank, self.files = files.rank, files
        self._code: int | None = None
        ours, self._line = os.pipe()
        with ExitStack() as stack:
            stack.callback(os.close, ours)
            # The terminal shows rank 0.
            output = None if self.rank == 0 else stack.enter_context(files.output.open("ab"))
            try:
                self._process = subprocess.Popen(
                    command, stdin=ours, stdout=output, stderr=output, start_new_session=True
                )
            except BaseException:
                os.close(self._line)
                raise

    @property
    def code(self) -> int | None:
        """Exit code, or minus the signal that ended it; None while it runs."""
        if self._code is None:
            # The process is left a zombie until `bury`, so that nobody else is given its number, nor its group's.
            found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                self._code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        return self._code

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.code is None

    @property
    def failed(self) -> bool:
        """Whether it ended before its work was done; how the interpreter ends after that is no failure of the run."""
        if self.code is None or self.code in GOOD_CODES:
            return False
        beat = self.beat
        return beat is None or beat.operation != DONE

    @property
    def is_stopped(self) -> bool:
        """Whether the system has it stopped: SIGSTOP, a debugger."""
        with suppress(OSError, IndexError):
            return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
        return False

    @property
    def beat(self) -> Beat | None:
        """Where it was last heard of."""
        return read_beat(self.files.heartbeat)

    @property
    def words(self) -> LastWords | None:
        """What it said when it failed."""
        return read_words(self.files.failure)

    def ask_to_stop(self, reason: str) -> None:
        """Pass on that the run is to stop."""
        with suppress(OSError):  # it has ended
            os.write(self._line, f"{STOP} {' '.join(reason.split())}\n".encode())

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.runs:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def bury(self) -> None:
        """End it and whatever it has started, at once, and let the system forget it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(OSError):
            os.close(self._line)
