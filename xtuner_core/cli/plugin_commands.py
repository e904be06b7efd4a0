"""Commands that plugins add: `xtuner-core --plugins NAME COMMAND …`.

A command's `ctx.obj` is the `Session`, whose `open_host()` is the host with the named plugins active.
"""

from __future__ import annotations

from collections.abc import Collection

import click

from xtuner_core.discovery import Candidate
from xtuner_core.errors import ContractError, PluginError
from xtuner_core.host import Host
from xtuner_core.loading import load
from xtuner_core.records import Command


def plugin_commands(host: Host, taken: Collection[str]) -> dict[str, click.Command]:
    """Commands of the active plugins by name.

    :param taken: names of the core's own.
    :raises PluginError: two commands of one name, or a target that is no click command.
    """
    owners: dict[str, Candidate] = {}
    commands: dict[str, click.Command] = {}
    for candidate, command in host.commands():
        if command.name in taken or command.name in owners:
            raise _clash(candidate, command.name, owners.get(command.name))
        owners[command.name] = candidate
        commands[command.name] = load_command(candidate, command)
    return commands


def load_command(candidate: Candidate, command: Command) -> click.Command:
    """Import one command of a plugin.

    :raises PluginError: it cannot be imported, or is no click command.
    """
    target = load(command.target, plugin=candidate.name, distribution=candidate.distribution)
    if not isinstance(target, click.Command):
        message = f"{candidate} names {command.target!r} as its command {command.name!r}, which is no click command"
        raise ContractError(message, fix=f"update or uninstall {candidate.distribution}", plugin=candidate.name)
    target.short_help = target.short_help or command.summary
    return target


def _clash(candidate: Candidate, name: str, other: Candidate | None) -> PluginError:
    whose = "the core itself has" if other is None else f"{other} has too"
    message = f"{candidate} adds the command {name!r}, which {whose}"
    return PluginError(message, fix=f"leave {candidate.name!r} out of --plugins", plugin=candidate.name)
