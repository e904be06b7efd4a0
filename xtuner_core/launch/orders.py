"""What a launcher tells a rank: a file with its place among the others and where the run begins."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xtuner_core.contracts.launcher import Membership, Start
from xtuner_core.engine.home import Home
from xtuner_core.engine.resume import Notice
from xtuner_core.plan import Plan


def write_orders(file: Path, membership: Membership, start: Start) -> None:
    """Write the file whose path is added to `Job.command`."""
    content = {"membership": asdict(membership), "start": asdict(start)}
    file.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def read_orders(file: Path) -> tuple[Membership, Start]:
    """Read what `write_orders` wrote."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    start = content["start"]
    notices = tuple((event, values) for event, values in start.pop("notices"))
    return Membership(**content["membership"]), Start(**start, notices=notices)


def start_of(home: Home, log_format: str = "console") -> Start:
    """What a rank must know of the run's home."""
    return Start(
        folder=str(home.folder),
        checkpoint=None if home.checkpoint is None else str(home.checkpoint),
        again=home.again,
        resumed=home.resumed,
        notices=tuple((notice.event, dict(notice.values)) for notice in home.notices),
        log_format=log_format,
    )


def home_of(start: Start, plan: Plan) -> Home:
    """The run's home as a rank sees it: chosen and locked by the process that started it."""
    return Home(
        folder=Path(start.folder),
        plan=plan,
        checkpoint=None if start.checkpoint is None else Path(start.checkpoint),
        again=start.again,
        resumed=start.resumed,
        notices=tuple(Notice(event, values) for event, values in start.notices),
    )
