"""What a plan stands on: exactly which plugins, and the versions of what is beneath."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from xtuner_core.content import content_hash
from xtuner_core.host import Host
from xtuner_core.plan import PlannedPlugin


def planned_plugins(host: Host, names: Sequence[str]) -> tuple[PlannedPlugin, ...]:
    """Exactly which plugins these are."""
    modules = {host.active[name].module for name in names if host.active[name].editable}
    roots = {module.partition(".")[0] for module in modules}
    hashes = {root: content_hash(root) for root in sorted(roots)}
    return tuple(
        PlannedPlugin(
            name=name,
            module=host.active[name].module,
            distribution=host.active[name].distribution,
            version=host.active[name].version,
            contract=host.infos[name].contract,
            content=hashes.get(host.active[name].module.partition(".")[0]) if host.active[name].editable else None,
        )
        for name in sorted(names)
    )


def environment() -> dict[str, str]:
    """Versions of what is beneath."""
    found = {"python": platform.python_version()}
    for name in ("torch", "xtuner-core-kernels", "transformers", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
