"""`xtuner-core run`: wire a run and train, repeat one from its plan, or only say what would run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xtuner_core.cli.failures import INTERRUPTED, RUN_AGAIN
from xtuner_core.cli.options import compose_run, override, run_arguments
from xtuner_core.cli.session import Session
from xtuner_core.errors import UsageError

if TYPE_CHECKING:
    from xtuner_core.plan import Plan
    from xtuner_core.wiring import Outcome

AGAIN = ("SIGTERM", "time_limit_seconds")
"""Reasons of a stop after which a scheduler is to start the same command again."""


@click.command("run")
@run_arguments
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Repeat the run of this folder (or plan file) exactly; takes no recipe, plugins or values.",
)
@click.option("--dry-run", is_flag=True, help="Compose and check everything, print the plan, train and write nothing.")
@click.option("--output-plan", is_flag=True, help="With --dry-run: print the plan as JSON, which --from reads.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "text", "json"]),
    help="Short for observer.console.format=…: a progress bar on a terminal and text elsewhere, text, or JSON lines.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Put the run there, instead of into a new folder below `output`.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the newest good checkpoint in --folder, or start where there is none; without --folder, in the "
    "newest unfinished run below `output` that was asked for the same.",
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="With --resume: go on though plugins or configuration are others than those of the run there.",
)
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    metavar="N",
    help="Short for launcher=local launcher.nproc=N: start N ranks on this host. Many hosts are torchrun's affair.",
)
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    metavar="N",
    help="Short for launcher.max_restarts=N: how often the ranks are started again after a failure.",
)
@click.pass_obj
def run(
    session: Session,
    arguments: tuple[str, ...],
    plugins: tuple[str, ...],
    source: Path | None,
    dry_run: bool,
    output_plan: bool,
    log_format: str | None,
    folder: Path | None,
    resume: bool,
    accept_changes: bool,
    nproc: int | None,
    max_restarts: int | None,
) -> int:
    """Train what a recipe and values ask for.

    RECIPE is the path of a YAML file or the name of a recipe that a plugin ships; without one, the recipe of the
    algorithm that is named, pre-training's otherwise: its demonstration where neither model, init nor dataset is given.
    Values are YAML: model=qwen3_moe:tiny, model.num_layers=4, device=cpu, optimizer.learning_rate=1e-3.
    """
    if output_plan and not dry_run:
        raise UsageError("--output-plan prints the plan instead of running it", fix="add --dry-run")
    _refuse_idle(dry_run, {"--folder": folder, "--resume": resume})
    if accept_changes and not resume:
        raise UsageError("--accept-changes is about going on with a run", fix="add --resume")
    if source is None:
        extra = [override("observer.console.format", log_format)] if log_format else []
        extra += [override("launcher", "local"), override("launcher.nproc", nproc)] if nproc is not None else []
        extra += [override("launcher.max_restarts", max_restarts)] if max_restarts is not None else []
        plan = compose_run(session, [*arguments, *extra], plugins).require()
    else:
        started = {"--nproc": nproc, "--max-restarts": max_restarts}
        changes = [f"{option} {value}" for option, value in started.items() if value is not None]
        _refuse_changes([*arguments, *(f"--plugins {name}" for name in plugins), *changes], log_format)
        plan = _replay(session, source)
    if not dry_run:
        return _train(session, plan, log_format, folder=folder, resume=resume, accept_changes=accept_changes)
    from xtuner_core.cli.dry_run import rehearse_plan

    rehearse_plan(session.open_host(), plan, as_json=output_plan)
    return 0


def _refuse_changes(changes: list[str], log_format: str | None) -> None:
    changes += [f"--log-format {log_format}"] if log_format else []
    if changes:
        message = f"--from repeats a run exactly, so {' '.join(changes)} has no place beside it"
        raise UsageError(message, fix="take it out, or compose a new run without --from")


def _replay(session: Session, source: Path) -> Plan:
    from xtuner_core.worker import replay

    session.plan, session.host = replay(source, host=session.open_host())
    return session.plan


def _refuse_idle(dry_run: bool, options: dict[str, object]) -> None:
    given = [name for name, value in options.items() if value]
    if dry_run and given:
        raise UsageError(f"--dry-run writes nothing, so {given[0]} has no place beside it", fix="take one of them out")


def _train(session: Session, plan: Plan, log_format: str | None, **where: Any) -> int:
    import xtuner_core

    log = "json" if log_format == "json" else "console"
    outcome = xtuner_core.run(plan, host=session.open_host(), log_format=log, **where)  # type: ignore[arg-type]
    if outcome.nothing_to_do:
        click.echo(f"{outcome.folder} has finished already, after {outcome.steps} steps: nothing to do", err=True)
    return _exit_code(outcome)


def _exit_code(outcome: Outcome) -> int:
    """0; 75 where the same command is to be run again; else as shells count a process that a signal ended."""
    if outcome.status != "stopped":
        return 0
    reason = str(outcome.summary.get("reason"))
    if reason in AGAIN:
        return RUN_AGAIN
    names = signal.Signals.__members__
    return 128 + names[reason] if reason in names else INTERRUPTED
