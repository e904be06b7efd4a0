"""Options and arguments that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xtuner_core.cli.session import Session
from xtuner_core.errors import UsageError

if TYPE_CHECKING:
    from xtuner_core.composition import Composition

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def plugins_option(text: str, *, eager: bool = False) -> Callable[[Decorated], Decorated]:
    """`--plugins a,b`, which may be given several times."""
    return click.option(
        "--plugins",
        "-p",
        multiple=True,
        metavar="A,B",
        is_eager=eager,
        callback=_split_commas,
        shell_complete=_installed_plugins,
        help=f"{text} Comma separated, and may be repeated.",
    )


def run_arguments(command: Decorated) -> Decorated:
    """`[RECIPE] [KEY=VALUE]…` and `--plugins` of commands that compose a run."""
    arguments = click.argument("arguments", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...")
    return plugins_option("Name plugins; each fills the slots of which it has one offer.")(arguments(command))


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")


def split_arguments(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The recipe, which is the argument without `=`, and the overrides.

    :raises UsageError: several have none.
    """
    recipes = [argument for argument in arguments if "=" not in argument]
    if len(recipes) > 1:
        message = f"{recipes[0]!r} and {recipes[1]!r} are both no key=value, and a run has one recipe"
        raise UsageError(message, fix="write key=value")
    return (recipes[0] if recipes else None), [argument for argument in arguments if "=" in argument]


def compose_run(session: Session, arguments: Sequence[str], plugins: Sequence[str]) -> Composition:
    """Compose what the arguments of a command ask for.

    :raises XTunerCoreError: the run cannot be composed.
    """
    from xtuner_core.composition import compose

    recipe, overrides = split_arguments(arguments)
    composition = compose(recipe, plugins=plugins, overrides=overrides, host=session.open_host())
    session.plan = composition.require()
    return composition


def override(key: str, value: Any) -> str:
    """A `key=value` argument whose value is read as it is (JSON is YAML)."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _split_commas(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    del ctx, param
    names = [name.strip() for value in values for name in value.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def _installed_plugins(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from xtuner_core.discovery import discover

    del ctx, param
    done, comma, start = incomplete.rpartition(",")
    return [f"{done}{comma}{name}" for name in sorted(discover().candidates) if name.startswith(start)]
