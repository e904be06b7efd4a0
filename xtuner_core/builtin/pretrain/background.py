"""A function that runs beside the training."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Background:
    """Calls a function in a thread of its own and keeps what it returns or raises.

    The thread is a daemon: a run that ends early does not wait for it. Where the system has priorities of threads
    it takes the lowest, so that it fills gaps and training goes on at its own pace.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> Any:
        """Wait for it."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value

    def _run(self) -> None:
        with suppress(OSError):  # Linux alone takes a thread's number here
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        try:
            self._value = self._call()
        except BaseException as error:  # handed to whoever asks for the result
            self._error = error
