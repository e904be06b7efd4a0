"""`run --dry-run`: everything checked, and the plan as a person reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from xtuner_core.cli.config_show import resolved, shown
from xtuner_core.cli.operators import write_operators
from xtuner_core.cli.output import write_table
from xtuner_core.host import Host
from xtuner_core.parts import Parts
from xtuner_core.plan import Plan, PlannedPick

if TYPE_CHECKING:
    from xtuner_core.engine.rehearsal import Rehearsal


def rehearse_plan(host: Host, plan: Plan, *, as_json: bool) -> None:
    """Check what can be checked without training, and print the plan.

    :param as_json: in the form that `--from` reads.
    :raises XTunerCoreError: what the run would have raised before its first step.
    """
    from xtuner_core.engine.rehearsal import rehearse

    found = rehearse(Parts(plan, host))
    if as_json:
        click.echo(plan.to_json(), nl=False)
        return
    _plugins(plan)
    _picks(plan)
    _values(plan)
    _section("size", _size(host, plan))
    _section("found here", _found(found))
    _section("notes", plan.notes)
    click.secho("operators", bold=True)
    write_operators(found.operators)
    click.echo(f"\ndigest {plan.digest}\nthis run can start; nothing was written")


def _section(title: str, lines: Iterable[str]) -> None:
    text = [f"  {line}" for line in lines]
    if text:
        click.secho(title, bold=True)
        click.echo("\n".join(text) + "\n")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        click.secho(title, bold=True)
        write_table(columns, rows, indent=2)
        click.echo()


def _plugins(plan: Plan) -> None:
    used = {pick.plugin for pick in plan.picks}
    rows = [[p.name, p.distribution, p.version, "" if p.name in used else "not picked from"] for p in plan.plugins]
    _table("plugins", ["NAME", "DISTRIBUTION", "VERSION", ""], rows)


def _picks(plan: Plan) -> None:
    _table("picks", ["KEY", "OFFER", "PLUGIN", "CHOSEN BY"], [_pick(plan, pick) for pick in plan.picks])


def _pick(plan: Plan, pick: PlannedPick) -> list[str]:
    preset = f":{pick.preset}" if pick.preset else ""
    source = f" from {pick.source}" if pick.source else ""
    return [pick.key, f"{pick.name}{preset}{source}", pick.plugin, plan.origins[pick.key]]


def _values(plan: Plan) -> None:
    """Values that somebody set; the defaults are `config show`'s affair."""
    picks = {pick.key for pick in plan.picks}
    rows = [[k, shown(v), o] for k, v, o in resolved(plan) if k not in picks and o != "default"]
    _table("values that are not their component's default", ["KEY", "VALUE", "SET BY"], rows)


def _size(host: Host, plan: Plan) -> Iterator[str]:
    """Parameters by the formula of the model's configuration; nothing is built for it."""
    config = Parts(plan, host).config("model")
    if not hasattr(config, "parameter_count"):
        return
    count = config.parameter_count()
    yield f"{count.total:,} parameters, {count.active:,} of them active for a token"
    yield f"{_bytes(count.total * 2)} of weights in bfloat16, {_bytes(count.total * 4)} in float32"


def _found(found: Rehearsal) -> Iterator[str]:
    yield f"device: {found.chip}"
    yield f"tokenizer: {found.tokenizer.size:,} tokens, {found.tokenizer.folder}"
    if found.weights is None:
        yield "weights: from the seed"
        return
    stored = found.weights.tensors.values()
    size = _bytes(sum(tensor.nbytes for tensor in stored))
    yield f"weights: {len(stored):,} tensors, {size}, every key and shape accounted for"


def _bytes(number: float) -> str:
    power = next((n for n in range(4) if number < 1000 ** (n + 1)), 4)
    return f"{number / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
