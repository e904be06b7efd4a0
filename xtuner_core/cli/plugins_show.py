"""`xtuner-core plugins show NAME`: everything that one plugin says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from xtuner_core.cli.options import json_option
from xtuner_core.cli.output import one_line, write_json, write_table
from xtuner_core.cli.session import Session


@click.command("show")
@click.argument("name")
@json_option
@click.pass_obj
def show(session: Session, name: str, as_json: bool) -> None:
    """Show the offers of the plugin NAME, with their presets and configuration.

    This activates the plugin; what it offers is not imported beyond its configuration.
    """
    host = session.open_host()
    host.activate(name)
    data = _describe(host, name)
    if as_json:
        write_json(data)
    else:
        _write(data)


def _describe(host: Any, name: str) -> dict[str, Any]:
    from xtuner_core.config.describe import describe

    candidate, info, settings = host.active[name], host.infos[name], host.settings_class(name)
    return {
        "name": name,
        "summary": info.summary,
        "distribution": candidate.distribution,
        "version": candidate.version,
        "editable": candidate.editable,
        "module": candidate.module,
        "contract": info.contract,
        "requires_plugins": list(info.requires_plugins),
        "capabilities": dict(info.capabilities),
        "recipes": {recipe.name: recipe.summary for recipe in info.recipes},
        "commands": {command.name: command.summary for owner, command in host.commands() if owner.name == name},
        "settings": None if settings is None else describe(settings),
        "offers": [_offer(host, offer) for offer in host.registry.of_plugin(name)],
    }


def _offer(host: Any, offer: Any) -> dict[str, Any]:
    from xtuner_core.config.describe import describe

    provider, config = offer.provider, host.config_class(offer)
    return {
        "slot": offer.slot,
        "name": offer.name,
        "summary": provider.summary,
        "factory": provider.factory,
        "hf_model_types": list(getattr(provider, "hf_model_types", ())),
        "suffixes": list(getattr(provider, "suffixes", ())),
        "provides": sorted(provider.provides),
        "requires": sorted(provider.requires),
        "lacks": {word: {"reason": lack.reason, "fix": lack.fix} for word, lack in provider.lacks.items()},
        "depends_on_split": provider.depends_on_split,
        "presets": [
            {"name": p.name, "alias": p.alias, "summary": p.summary, "values": dict(p.values)} for p in provider.presets
        ],
        "config": None if config is None else describe(config),
    }


def _write(data: Mapping[str, Any]) -> None:
    editable = ", editable" if data["editable"] else ""
    click.echo(f"{data['name']}: {data['summary']}")
    click.echo(
        f"{data['distribution']} {data['version']}{editable}, module {data['module']}, contract {data['contract']}"
    )
    _words("requires the plugins", data["requires_plugins"])
    for title in ("capabilities", "recipes", "commands"):
        for name, text in data[title].items():
            click.echo(f"{title}: {name}: {one_line(text)}")
    if data["settings"]:
        click.echo(f"\nsettings, written as plugins.{data['name']}.KEY=VALUE")
        _fields(data["settings"])
    for offer in data["offers"]:
        _write_offer(offer)


def _write_offer(offer: Mapping[str, Any]) -> None:
    click.echo(f"\n{click.style(offer['slot'] + ' ' + offer['name'], bold=True)}: {offer['summary']}")
    _words("  reads the model_type", offer["hf_model_types"])
    _words("  reads files ending in", offer["suffixes"])
    _words("  provides", offer["provides"])
    _words("  requires", offer["requires"])
    for word, lack in offer["lacks"].items():
        click.echo(f"  lacks {word}: {lack['reason']}; {lack['fix']}")
    if offer["depends_on_split"]:
        click.echo(f"  depends on how the work is split: {offer['depends_on_split']}")
    for preset in offer["presets"]:
        writings = [f"{offer['slot']}={offer['name']}:{preset['name']}"]
        writings += [f"{offer['slot']}={preset['alias']}"] if preset["alias"] else []
        click.echo(f"  preset {' or '.join(writings)}: {preset['summary']}")
    if offer["config"]:
        _fields(offer["config"])


def _words(label: str, words: Iterable[str]) -> None:
    if words:
        click.echo(f"{label} {', '.join(words)}")


def _fields(fields: Iterable[Mapping[str, Any]]) -> None:
    rows = [[f["name"], f["type"], _default(f["default"]), one_line(f["doc"])] for f in fields]
    write_table(["KEY", "TYPE", "DEFAULT", "MEANING"], rows, indent=2)


def _default(value: Any) -> str:
    if value == "???":
        return "required"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
