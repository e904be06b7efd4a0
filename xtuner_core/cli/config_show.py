"""`xtuner-core config show`: each resolved value of a run with where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from xtuner_core.cli.options import compose_run, json_option, run_arguments
from xtuner_core.cli.output import write_json, write_table
from xtuner_core.cli.session import Session

if TYPE_CHECKING:
    from xtuner_core.plan import Plan


@click.command("show")
@run_arguments
@json_option
@click.pass_obj
def show(session: Session, arguments: tuple[str, ...], plugins: tuple[str, ...], as_json: bool) -> None:
    """Show every value of the run that `run` with the same arguments would start, and its origin.

    Origins are a line of a recipe, a preset, a plugin's patch with its reason, the command line, or the default of
    the component that owns the key.
    """
    rows = list(resolved(compose_run(session, arguments, plugins).require()))
    if as_json:
        write_json([{"key": key, "value": value, "origin": origin} for key, value, origin in rows])
    else:
        write_table(["KEY", "VALUE", "ORIGIN"], [[key, shown(value), origin] for key, value, origin in rows])


def resolved(plan: Plan) -> Iterator[tuple[str, Any, str]]:
    """Key, value and origin of every pick, each followed by the values below it; the run's own settings first."""
    picks = {pick.key: _pick(plan, pick.key) for pick in plan.picks}
    values = dict(_leaves(plan.config, "", plan.origins))
    own = [key for key in values if not any(key.startswith(f"{pick}.") for pick in picks)]
    for key in [*own, *sorted({*values, *picks} - {*own})]:
        yield key, picks.get(key, values.get(key)), plan.origins[key]


def shown(value: Any) -> str:
    """A value as a person writes it on the command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _pick(plan: Plan, key: str) -> str:
    pick = plan.pick(key)
    assert pick is not None
    return pick.source or (f"{pick.name}:{pick.preset}" if pick.preset else pick.name)


def _leaves(config: Mapping[str, Any], path: str, origins: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        key = f"{path}.{name}" if path else name
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, key, origins)
        elif value != {}:
            yield key, value
