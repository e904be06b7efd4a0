"""The handle by which a run is stopped from outside: another thread, a signal, a platform."""

from __future__ import annotations


class RunHandle:
    """Asks a run to stop after the step that it is in, from any thread or from a signal handler.

    It takes no lock: a signal may arrive while the same thread is inside `stop`.
    """

    def __init__(self) -> None:
        self._reason: str | None = None

    def stop(self, reason: str = "asked to stop") -> None:
        """Ask for a stop; of several reasons the first is kept."""
        if self._reason is None:
            self._reason = reason

    @property
    def reason(self) -> str | None:
        """Why the run is to stop; None while it is not."""
        return self._reason
