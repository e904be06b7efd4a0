"""`xtuner-core doctor`: what is here, and which implementation serves each operator of a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xtuner_core.cli.operators import write_operators
from xtuner_core.cli.output import write_table
from xtuner_core.cli.session import Session
from xtuner_core.errors import XTunerCoreError

if TYPE_CHECKING:
    from xtuner_core.host import Host
    from xtuner_core.parts import Parts

BENEATH = ("torch", "xtuner-core-kernels", "transformers", "safetensors", "tokenizers", "triton", "numpy")


@click.command("doctor")
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
@click.pass_obj
def doctor(session: Session, run: Path | None) -> int:
    """Show versions, plugins, devices, operators.

    The operator table is that of RUN, or of the default recipe.
    For each use of an operator: the implementation that serves it, and why each of the others does not.
    """
    host = session.open_host()
    parts: list[Parts] = []
    sections: dict[str, Callable[[], None]] = {
        "versions": _versions,
        "plugins": lambda: _plugins(host),
        "run": lambda: parts.append(_parts(session, run)),
        "devices": lambda: _devices(host),
        "operators": lambda: _operators(parts[0]) if parts else click.echo("  none without a run"),
    }
    code = 0
    for title, write in sections.items():
        click.secho(f"{title}", bold=True)
        try:
            write()
        except XTunerCoreError as error:
            click.echo(f"  {click.style('error:', fg='red')} " + str(error).replace("\n", "\n  "))
            code = error.exit_code
        click.echo()
    return code


def _versions() -> None:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from xtuner_core import __version__

    rows = [["python", platform.python_version()], ["xtuner-core", __version__]]
    for name in BENEATH:
        found = "not installed"
        with suppress(PackageNotFoundError):
            found = version(name)
        rows.append([name, found])
    write_table(["NAME", "VERSION"], rows, indent=2)


def _plugins(host: Host) -> None:
    rows = [
        [c.name, f"{c.distribution} {c.version}", "active" if c.name in host.active else c.fault or "installed"]
        for c in host.discovery.candidates.values()
    ]
    rows += [
        [name, " and ".join(f"{c.distribution} {c.version}" for c in claims), "claimed by several distributions"]
        for name, claims in host.discovery.clashes.items()
    ]
    write_table(["NAME", "DISTRIBUTION", "STATE"], sorted(rows), indent=2)


def _parts(session: Session, run: Path | None) -> Parts:
    """The parts of the run, or of the default recipe."""
    from xtuner_core.composition import compose
    from xtuner_core.parts import Parts
    from xtuner_core.worker import replay

    host = session.open_host()
    plan = compose(host=host).require() if run is None else replay(run, host=host)[0]
    click.echo(f"  {run or 'the default recipe'}, plan {plan.digest[:16]}")
    click.echo("  " + ", ".join(f"{p.key}={p.name}{':' + p.preset if p.preset else ''}" for p in plan.picks))
    return Parts(plan, host)


def _devices(host: Host) -> None:
    """What the probe of every active device plugin finds; installed, inactive ones are named."""
    from xtuner_core.loading import load

    rows = []
    for offer in host.registry.of_slot("device"):
        probe = load(offer.provider.probe, plugin=offer.plugin, distribution=offer.distribution)  # type: ignore[attr-defined]
        try:
            found = probe()
            rows.append([offer.name, offer.plugin, str(found.count), found.reason])
        except Exception as error:
            rows.append([offer.name, offer.plugin, "?", f"its probe raises {type(error).__name__}: {error}"])
    inactive = host.discovery.listed("device").keys() - {offer.name for offer in host.registry.of_slot("device")}
    rows += [[name, ", ".join(host.discovery.owners("device", name)), "?", "inactive"] for name in sorted(inactive)]
    write_table(["DEVICE", "PLUGIN", "COUNT", "REASON"], rows, indent=2)


def _operators(parts: Parts) -> None:
    from xtuner_core.engine.build import operator_rows
    from xtuner_core.engine.inputs import opened_device

    with opened_device(parts) as (device, facts):
        click.echo(f"  on {facts.chip}")
        write_operators(operator_rows(parts, device))
