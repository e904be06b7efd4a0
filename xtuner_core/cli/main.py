"""The command `xtuner-core`: options that stand before a command, and what becomes of a failure."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import click

from xtuner_core import __version__
from xtuner_core.cli.failures import interrupted, report, show_warning
from xtuner_core.cli.group import TopGroup
from xtuner_core.cli.options import plugins_option
from xtuner_core.cli.session import Session

PROGRAM = "xtuner-core"

COMMANDS = {
    "run": "xtuner_core.cli.run:run",
    "plugins": "xtuner_core.cli.plugins:plugins",
    "config": "xtuner_core.cli.config:config",
    "export": "xtuner_core.cli.export:export",
    "generate": "xtuner_core.cli.generate:generate",
    "data": "xtuner_core.cli.data:data",
    "runs": "xtuner_core.cli.runs:runs",
    "new-plugin": "xtuner_core.cli.new_plugin:new_plugin",
    "doctor": "xtuner_core.cli.doctor:doctor",
}

EPILOG = "A plugin's own commands: xtuner-core --plugins NAME --help. With --plugins after a command, see its --help."


@click.group(cls=TopGroup, lazy=COMMANDS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@plugins_option("Activate these plugins for the commands that they add.", eager=True)
@click.option("--debug", is_flag=True, help="Show the traceback of whatever fails.")
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_obj
def cli(session: Session, plugins: tuple[str, ...], debug: bool) -> None:
    """Train large mixture-of-experts language models with plugins."""
    session.plugins = plugins
    session.debug = debug


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; `args` are those of the process where none are given.

    :return: the exit code: 0, 2 for a wrong use, 3 for a broken plugin, 4 for bad data, 5 for a failed run,
        1 for a bug or a machine that refused memory or a file, 130 where it was interrupted.
    """
    # PyTorch imports every device package that is installed as soon as it is imported itself. Which device a run
    # uses is for a device plugin to say, and a broken package of a device that is not wanted must do no harm.
    os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    # GNU OpenMP's threads spin while they wait for each other. On two cores of which another process used one, a
    # step took 0.70 s with this count, 2.03 s with ten times it; on quiet ones 0.29 and 0.28 s. It changes no result.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    session = Session()
    with warnings.catch_warnings():
        warnings.showwarning = show_warning(warnings.showwarning)
        try:
            code = cli.main(args, prog_name=PROGRAM, standalone_mode=False, obj=session)
        except click.Abort:
            return interrupted()
        except Exception as error:
            return report(error, session)
    return code if isinstance(code, int) else 0
