"""What a person reads when something fails: a sentence, the way out, and for a bug whose it is."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from xtuner_core.cli.session import Session
from xtuner_core.errors import XTunerCoreError

if TYPE_CHECKING:
    from xtuner_core.discovery import Candidate

INTERRUPTED = 130
"""Exit code of what Ctrl-C ended: 128 + SIGINT, as shells count."""
RUN_AGAIN = 75
"""Exit code of a run that saved a checkpoint and left: EX_TEMPFAIL of sysexits.h, the same command goes on."""
BUG = 1
"""Exit code of a failure that is no error of ours: a bug, or a machine that refused memory or a file."""


def report(error: Exception, session: Session) -> int:
    """Write an error to standard error.

    :return: the exit code.
    """
    if session.debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    code = _say(error, session)
    for hint in _hints(error, session):
        _line("hint", "cyan", hint)
    return code


def interrupted() -> int:
    """Say that Ctrl-C, or the end of an input that was asked for, ended the command.

    :return: the exit code.
    """
    _line("error", "red", "interrupted")
    return INTERRUPTED


def _hints(error: Exception, session: Session) -> list[str]:
    """What the active plugins say of it; a run has asked them already and put their answers into notes."""
    notes: list[str] = getattr(error, "__notes__", [])
    if notes or session.host is None:
        return notes
    return [hint.text for hint in session.host.explain(error, session.plan)]


def _say(error: Exception, session: Session) -> int:
    if isinstance(error, XTunerCoreError):
        _line("error", "red", error.message)
        if error.fix:
            _line("fix", "green", error.fix)
        return error.exit_code
    if isinstance(error, click.ClickException):
        _line("error", "red", error.format_message())
        context = getattr(error, "ctx", None)
        _line("fix", "green", f"see {context.command_path if context else 'xtuner-core'} --help")
        return error.exit_code
    refused = isinstance(error, (OSError, MemoryError)) or type(error).__name__ == "OutOfMemoryError"
    _line("error", "red", _brief(error) + ("" if refused else f"; this is a bug of {_culprit(error, session)}"))
    if not session.debug:
        advice = "to see where" if refused else "for the traceback, and report it"
        _line("fix", "green", f"write xtuner-core --debug before the command {advice}")
    return BUG


def show_warning(otherwise: Callable[..., None]) -> Callable[..., None]:
    """A `warnings.showwarning` that writes those about plugins as a line, and leaves the others to `otherwise`."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        *rest: Any,
    ) -> None:
        if category.__module__.startswith("xtuner_core."):
            _line("warning", "yellow", str(message))
        else:
            otherwise(message, category, filename, lineno, file, *rest)

    return show


def _line(word: str, colour: str, text: str) -> None:
    click.echo(f"{click.style(word + ':', fg=colour, bold=True)} {text}", err=True)


def _brief(error: Exception) -> str:
    text = str(error).splitlines()
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return (f"{type(error).__name__}: {text[0]}" if text else type(error).__name__) + where


def _culprit(error: Exception, session: Session) -> str:
    """The plugin in whose code the innermost frame of ours or theirs lies, else the core."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = str(frame.f_globals.get("__name__", ""))
        owner = _owner(module, session)
        if owner is not None:
            return str(owner)
        if module.partition(".")[0] == "xtuner_core":
            break
    return "xtuner-core"


def _owner(module: str, session: Session) -> Candidate | None:
    for candidate in session.host.active.values() if session.host is not None else ():
        package = candidate.module.rpartition(".")[0] or candidate.module
        if package and (module == package or module.startswith(package + ".")):
            return candidate
    return None
