"""How what happened to a rank is said."""

from __future__ import annotations

import signal

from xtuner_core.engine.ranks.heartbeat import STARTING, Beat

_WHY = {
    signal.SIGKILL: ", perhaps because the host had no memory left (its kernel log says so)",
}


def ending(code: int) -> str:
    """What an exit code says; below 0 it is minus a signal."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        number = signal.Signals(-code)
    except ValueError:
        return f"was ended by signal {-code}"
    return f"was ended by {number.name}{_WHY.get(number, '')}"


def place(beat: Beat | None) -> str:
    """Where a rank was."""
    if beat is None:
        return "before it began"
    if beat.operation == STARTING:
        return "while it started"
    return f"after step {beat.step}, in {beat.operation}"
