"""A rank that follows: it builds its share of the engine, and does what the leading rank orders until the run ends."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xtuner_core.contracts.device import Device
from xtuner_core.engine.build import Watch, build_engine
from xtuner_core.engine.checkpoint.layout import MODEL, checkpoints
from xtuner_core.engine.checkpoint.saved import read_checkpoint
from xtuner_core.engine.checkpoint.saver import Saver
from xtuner_core.engine.checkpoint.state import RunState, moment_parts
from xtuner_core.engine.handle import RunHandle
from xtuner_core.engine.inputs import is_deterministic, opened_device
from xtuner_core.engine.outcome import Outcome
from xtuner_core.engine.process import determinism, device_seeded
from xtuner_core.engine.ranks.heartbeat import WAITING, Pulse
from xtuner_core.engine.ranks.meeting import made_crew
from xtuner_core.engine.ranks.place import Place
from xtuner_core.engine.ranks.world import World, compare_plans
from xtuner_core.engine.saving import Saving
from xtuner_core.launch.files import RankFiles
from xtuner_core.launch.vitals import vitals
from xtuner_core.logs import run_log
from xtuner_core.parts import Parts


class Follower:
    """Any rank but the first.

    :param handle: says whether this process is asked to stop, which the leading rank is told with the next step.
    """

    def __init__(self, parts: Parts, place: Place, handle: RunHandle) -> None:
        self._parts = parts
        self._place = place
        self._rank = place.membership.rank
        self._handle = handle

    def go(self) -> Outcome:
        """Follow to the end of the run."""
        parts, core = self._parts, self._parts.core
        with (
            opened_device(parts, self._place.membership.local_rank) as (device, _),
            determinism(is_deterministic(parts, device)),
            device_seeded(core.seed, device),
            self._place.joined(device, core.ranks.timeout_seconds) as world,
        ):
            compare_plans(world, parts.plan)
            home = world.control.share()
            folder = Path(home["folder"])
            with self._logging(folder) as log, self._pulse(folder) as pulse:
                end = self._follow(device, world, home, log, pulse)
        newest = next(iter(checkpoints(folder)), None)
        return Outcome(**end, folder=folder, summary={}, observer_failures=(), checkpoint=newest)

    def _follow(self, device: Device, world: World, home: Mapping[str, Any], log: Any, pulse: Pulse) -> dict[str, Any]:
        parts, core = self._parts, self._parts.core
        folder, found = Path(home["folder"]), home["checkpoint"]
        checkpoint = None if found is None else Path(found)
        watch = Watch(stopping=lambda: self._handle.reason, pulse=pulse)
        weights = None if checkpoint is None else checkpoint / MODEL
        engine = build_engine(parts, device, watch, weights, made_crew(parts, device, world))
        state = RunState(engine=engine, plan=parts.plan, shard_bytes=core.export.shard_bytes)
        saver = Saver(
            folder, core.checkpoint, state.take, log, world.control, background=world.background, device=device
        )
        saving = Saving(engine, saver, folder, shard_bytes=core.export.shard_bytes, again=home["again"])
        if checkpoint is not None:
            saved = read_checkpoint(checkpoint, moment_parts(engine))
            state.restore(saved)
            state.restore_random(saved)
        log.info("following")
        handlers = {**engine.handlers(), **saving.handlers()}
        return engine.crew.follow(handlers, lambda: pulse.at(engine.steps_taken, WAITING))

    @contextmanager
    def _logging(self, folder: Path) -> Iterator[Any]:
        file = RankFiles(folder, self._rank).log
        file.parent.mkdir(exist_ok=True)
        # The terminal shows the leading rank.
        with Path(os.devnull).open("w") as nowhere, run_log(file, stream=nowhere) as log:
            yield log.bind(rank=self._rank)

    @contextmanager
    def _pulse(self, folder: Path) -> Iterator[Pulse]:
        """What the rank's process writes where it is to, or what is opened here where nobody else watches it."""
        seconds = self._parts.core.ranks.timeout_seconds
        if self._place.watched:
            yield self._place.pulse
            return
        with vitals(folder, self._rank, limit_seconds=seconds) as pulse:
            yield pulse
