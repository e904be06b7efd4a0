"""The log of a run: structured lines in a file; warnings and errors also on a stream.

How the run goes is the observers' to show. Nothing is left behind: loggers carry their own chain of processors
instead of a global configuration, and what other packages say through Python's `logging` is listened to only
while the run goes on.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TextIO

LogFormat = Literal["console", "json"]


@contextmanager
def run_log(file: Path, *, log_format: LogFormat = "console", stream: TextIO | None = None) -> Iterator[Any]:
    """Open a structlog logger that writes JSON lines to `file`, and warnings and errors to a stream too.

    ``log.bind(plugin="grpo", slot="algorithm")`` gives one whose lines say where they come from. Warnings and
    errors of Python's own loggers are written too.

    :param log_format: of the stream: key=value for people, or one JSON object a line.
    :param stream: standard error by default.
    """
    copy = file.open("a", encoding="utf-8", buffering=1)
    try:
        log = _logger(copy, log_format, sys.stderr if stream is None else stream)
        listener = _Listener(log)
        logging.getLogger().addHandler(listener)
        try:
            yield log
        finally:
            logging.getLogger().removeHandler(listener)
    finally:
        with suppress(OSError):  # as below
            copy.close()


def _logger(copy: TextIO, log_format: LogFormat, stream: TextIO) -> Any:
    import structlog  # 90 ms, which `--help` need not pay

    def write(_: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # A full disk must not end a run because it has something to say; what is worth a warning is shown anyway.
        with suppress(OSError):
            copy.write(json.dumps(dict(event), ensure_ascii=False, default=str) + "\n")
        if level == "info":
            raise structlog.DropEvent
        return event

    people = structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)
    return structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            write,
            structlog.processors.JSONRenderer(default=str) if log_format == "json" else people,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )


class _Listener(logging.Handler):
    """Hands what others log through `logging` to the run's log."""

    def __init__(self, log: Any) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, record.getMessage(), logger=record.name)
