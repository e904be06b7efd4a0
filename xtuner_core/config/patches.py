"""Values that plugins set between the recipe and the command line: collected, compared, applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xtuner_core.config.layers import Assignment, Layer
from xtuner_core.config.picks import Choice
from xtuner_core.config.schema import Schema
from xtuner_core.host import Host
from xtuner_core.plan import PlannedPatch
from xtuner_core.records import SLOTS, Problem


def apply_patches(
    host: Host, schema: Schema, choices: Mapping[str, Choice], command: Layer
) -> tuple[list[PlannedPatch], list[Problem]]:
    """Collect every active plugin's patches, refuse conflicts, apply the rest.

    :param schema: holds defaults and recipe.
    :param command: the command line, which plugins see but which is applied after them.
    """
    if not any(host.implements(plugin, "xtuner_configure") for plugin in host.active):
        return [], []
    seen_by_plugins = schema.resolve()[0]
    for assignment in command:
        _put(seen_by_plugins, assignment)
    applied: dict[str, PlannedPatch] = {}
    problems: list[Problem] = []
    for plugin, patch in host.patches(seen_by_plugins):
        planned = PlannedPatch(path=patch.path, value=patch.value, plugin=plugin, reason=patch.reason)
        problem = _conflict(planned, applied, choices)
        if problem is None:
            applied[patch.path] = planned
            origin = f"patch of plugin {plugin!r}: {patch.reason}"
            problem = schema.assign(Assignment(tuple(patch.path.split(".")), patch.value, origin))
        problems += [problem] if problem else []
    return list(applied.values()), problems


def _put(config: dict[str, Any], assignment: Assignment) -> None:
    """Show plugins what the command line says, without validating it yet."""
    *parents, last = assignment.path
    for part in parents:
        inner = config.get(part)
        if not isinstance(inner, dict):
            return
        config = inner
    config[last] = assignment.value


def _overlap(path: str, other: str) -> bool:
    """Whether one key is the other, or holds it."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _conflict(
    patch: PlannedPatch, applied: Mapping[str, PlannedPatch], choices: Mapping[str, Choice]
) -> Problem | None:
    other = next((p for path, p in applied.items() if _overlap(path, patch.path)), None)
    if other is not None:
        message = (
            f"plugins {other.plugin!r} and {patch.plugin!r} both set {patch.path}: to {other.value!r} ({other.reason}) "
            f"and to {patch.value!r} ({patch.reason})"
        )
        fix = "leave one of them out"
        return Problem(message=message, fix=fix, code="patches", key=patch.path, plugins=(other.plugin, patch.plugin))
    if patch.path in choices or patch.path in SLOTS or patch.path.endswith(".name"):
        message = f"plugin {patch.plugin!r} patches {patch.path}, which is a pick; picks are the user's"
        fix = f"update or leave out {patch.plugin!r}"
        return Problem(message=message, fix=fix, code="patches", key=patch.path, plugins=(patch.plugin,))
    return None
