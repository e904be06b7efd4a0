"""`xtuner-core plugins check`: whether plugins keep the contract, each tried in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import click

from xtuner_core.cli.options import json_option
from xtuner_core.cli.output import write_json
from xtuner_core.discovery import Discovery, discover
from xtuner_core.errors import PluginError

SECONDS = 300
"""How long a plugin may take; importing PyTorch on a busy machine takes some of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found."""

    name: str
    whose: str
    """Distribution and version."""
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@click.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def check(names: tuple[str, ...], as_json: bool) -> int:
    """Check plugins, all that are installed where none is named.

    Each is activated in a process of its own; everything that its records name is imported, its configuration made
    with defaults and with each preset, and its offers compared with the offers index of its distribution. Exit code
    3 where one is broken.
    """
    found = discover()
    chosen = names or (*sorted(found.candidates), *sorted(found.clashes))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = list(pool.map(lambda name: _verdict(name, found), chosen))
    if as_json:
        write_json([asdict(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            click.echo(_paragraph(verdict))
    return PluginError.exit_code if any(verdict.problems for verdict in verdicts) else 0


def _verdict(name: str, found: Discovery) -> Verdict:
    candidates = [found.candidates[name]] if name in found.candidates else found.clashes.get(name, ())
    whose = " and ".join(f"{candidate.distribution} {candidate.version}" for candidate in candidates)
    command = [sys.executable, "-m", "xtuner_core.cli.plugin_checks", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Verdict(name, whose, (f"it does not answer within {SECONDS} seconds",), ())
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:]
        ended = f"its process ended with exit code {done.returncode}"
        return Verdict(name, whose, (f"{ended}: {last[0]}" if last else ended,), ())
    return Verdict(name, whose, tuple(answer["problems"]), tuple(answer["warnings"]))


def _paragraph(verdict: Verdict) -> str:
    head = f"{verdict.name} ({verdict.whose})" if verdict.whose else verdict.name
    state = click.style("broken", fg="red") if verdict.problems else click.style("ok", fg="green")
    lines = [f"{head}: {state}"]
    lines += [f"  - {problem}" for problem in verdict.problems]
    lines += [f"  - warning: {warning}" for warning in verdict.warnings]
    return "\n".join(lines)
