"""What one invocation of the command line holds: its options, and the host and plan once there are any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xtuner_core.host import Host
    from xtuner_core.plan import Plan


@dataclass(slots=True)
class Session:
    """`click.Context.obj` of every command, those of plugins included."""

    debug: bool = False
    plugins: tuple[str, ...] = ()
    """Names given before the command."""
    host: Host | None = None
    """Once a command needs it; asked for hints when something fails."""
    plan: Plan | None = None

    def open_host(self) -> Host:
        """The host of this invocation, with the plugins that were named before the command active."""
        from xtuner_core.host import Host

        if self.host is None:
            self.host = Host(self.plugins)
        return self.host
