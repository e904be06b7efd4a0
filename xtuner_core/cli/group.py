"""Groups whose commands are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from xtuner_core.errors import UnknownName, UsageError


class LazyGroup(click.Group):
    """A group that knows its commands by reference.

    :param lazy: name to `"package.module:command"`, in the order in which help shows them.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, str], **named: Any) -> None:
        super().__init__(*args, **named)
        self.lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, as written."""
        return [*self.lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None where there is none of this name."""
        if cmd_name not in self.lazy:
            return None
        module, _, name = self.lazy[cmd_name].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names.

        :raises UnknownName: there is none; says the nearest.
        """
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            raise UnknownName(f"there is no command {args[0]!r}", fix=self.advice(ctx, near))
        return super().resolve_command(ctx, args)

    def advice(self, ctx: click.Context, near: list[str]) -> str:
        """What to write instead of a command that is not there."""
        return f"write {ctx.command_path} {near[0]}" if near else f"see {ctx.command_path} --help"


class TopGroup(LazyGroup):
    """The command itself: the core's commands, and those of plugins that are named before them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The core's, then those of the plugins given as `--plugins`."""
        return [*self.lazy, *(_plugin_commands(self, ctx) if ctx.params.get("plugins") else ())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command of the core, else of an active plugin."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name.startswith("-"):
            return own
        return _plugin_commands(self, ctx).get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Beside what `LazyGroup` does, refuse plugins that a command of the core would pass over.

        :raises UsageError: plugins stand before a command of the core.
        """
        named = ctx.params.get("plugins")
        if named and args[0] in self.lazy:
            message = f"--plugins before {args[0]!r} would activate commands of plugins, and this one is the core's"
            raise UsageError(
                message, fix=f"write {ctx.command_path} {args[0]} --plugins {','.join(named)}, if it takes any"
            )
        return super().resolve_command(ctx, args)

    def advice(self, ctx: click.Context, near: list[str]) -> str:
        """Mention that a plugin's commands need the plugin's name."""
        named = "" if ctx.params.get("plugins") else "; a plugin's command needs --plugins NAME before it"
        return super().advice(ctx, near) + named


def _plugin_commands(group: TopGroup, ctx: click.Context) -> dict[str, click.Command]:
    from xtuner_core.cli.plugin_commands import plugin_commands

    ctx.obj.plugins = ctx.params.get("plugins") or ()
    return plugin_commands(ctx.obj.open_host(), group.lazy)
