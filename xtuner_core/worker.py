"""Replaying a plan in another process: a rank, an actor, or the same command a week later."""

from __future__ import annotations

from pathlib import Path

from xtuner_core.config.schema import instantiate, section_of
from xtuner_core.errors import PlanMismatch, XTunerCoreError
from xtuner_core.host import Host
from xtuner_core.inventory import planned_plugins
from xtuner_core.plan import Plan, PlannedPlugin
from xtuner_core.registry import Offer


def replay(run: Path | str, *, host: Host | None = None) -> tuple[Plan, Host]:
    """Activate exactly the plugins of a plan; nothing else decides anything.

    :param run: a run's folder or a plan file.
    :param host: plugins passed as objects must be active in it; None activates what is installed.
    :return: the plan, whose digest equals that of the process that froze it, and the host.
    :raises PlanMismatch: the plan was edited, or the plugins here are not those of the plan; names each field.
    """
    plan = Plan.load(Path(run))
    host = Host() if host is None else host
    _activate(plan, host)
    here = Plan(
        core=_core_version(),
        plugins=planned_plugins(host, [plugin.name for plugin in plan.plugins]),
        picks=plan.picks,
        config=plan.config,
        origins=plan.origins,
    )
    differences = plan.difference(here)
    if differences:
        lines = "\n".join(f"- {line}" for line in differences)
        fix = "install what the plan names, or compose a new run"
        raise PlanMismatch(f"this is not the run that {run} froze:\n{lines}", fix=fix)
    _check_picks(plan, host)
    return plan, host


def _core_version() -> str:
    from xtuner_core import __version__

    return __version__


def _activate(plan: Plan, host: Host) -> None:
    for plugin in plan.plugins:
        if plugin.distribution == "object" and plugin.name not in host.active:
            message = f"the plan's plugin {plugin.name!r} was passed as an object, which no other process can find"
            raise PlanMismatch(message, fix="install it as a distribution", plugin=plugin.name)
        try:
            host.activate(plugin.name)
        except XTunerCoreError as error:
            message = f"the plan's {_named(plugin)} cannot be activated: {error.message}"
            raise PlanMismatch(message, fix=error.fix, plugin=plugin.name) from error


def _named(plugin: PlannedPlugin) -> str:
    return f"plugin {plugin.name!r} ({plugin.distribution} {plugin.version})"


def _check_picks(plan: Plan, host: Host) -> None:
    """The offers are there and still take their configuration."""
    for pick in plan.picks:
        offer = host.registry.find(pick.slot, pick.name)
        if offer is None or offer.plugin != pick.plugin:
            message = f"picks.{pick.key}: plugin {pick.plugin!r} no longer offers the {pick.slot} {pick.name!r}"
            fix = "install what the plan names, or compose a new run"
            raise PlanMismatch(message, fix=fix, plugin=pick.plugin)
        cls = host.config_class(offer)
        if cls is not None:
            _check_config(plan, pick.key, offer, cls)


def _check_config(plan: Plan, key: str, offer: Offer, cls: type) -> None:
    try:
        instantiate(cls, section_of(plan.config, key))
    except Exception as error:  # whatever a plugin's __post_init__ raises
        message = f"config.{key}: {offer} no longer takes it: {next(iter(str(error).splitlines()), error)}"
        fix = f"install {offer.distribution} as it was when the plan was frozen, or compose a new run"
        raise PlanMismatch(message, fix=fix, plugin=offer.plugin) from error
