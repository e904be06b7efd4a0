"""When a run saves, what becomes of a save that fails, and how long saving takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from xtuner_core.config.root import CheckpointConfig
from xtuner_core.contracts.device import Device
from xtuner_core.engine.checkpoint.background import HostCopies, Pending
from xtuner_core.engine.checkpoint.keep import prune
from xtuner_core.engine.checkpoint.layout import FOLDER, checkpoint_name, checkpoints, step_of
from xtuner_core.engine.checkpoint.manifest import Score
from xtuner_core.engine.checkpoint.snapshot import Content, Snapshot, Weights, content_of, write_checkpoint
from xtuner_core.errors import RunError
from xtuner_core.hf.agreement import Agreement
from xtuner_core.hf.together import ALONE, Together


class Take(Protocol):
    """Takes a snapshot of the run as it stands."""

    def __call__(self, score: Score | None) -> tuple[Weights, Snapshot]:
        """The weights, and all else; nothing is copied."""


class Saver:
    """Saves a run's checkpoints and removes superfluous ones.

    :param run: the run's folder.
    :param take: takes a snapshot.
    :param log: of the run.
    :param together: how the ranks of the run meet; all of them save at the same step.
    :param background: how their threads meet that write while steps go on.
    :param device: from which is copied for them; None where the settings ask for none.
    """

    def __init__(
        self,
        run: Path,
        settings: CheckpointConfig,
        take: Take,
        log: Any,
        together: Together = ALONE,
        *,
        background: Together = ALONE,
        device: Device | None = None,
    ) -> None:
        self._run = run
        self._together = together
        self._background = background
        assert device is not None or not settings.asynchronous, "asynchronous saves copy from a device"
        self._copies = HostCopies(device) if device is not None and settings.asynchronous else None
        self._pending: Pending | None = None
        self._longest: float | None = None
        self._settings = settings
        self._take = take
        self._log = log
        self._last_time = perf_counter()
        self._unreported = 0.0
        self.seconds = 0.0
        """Spent on saves, those that failed included."""

    def due(self, step: int, *, improved: bool) -> bool:
        """Whether the run's settings ask for a checkpoint after this step."""
        settings = self._settings
        by_step = settings.every_steps is not None and step % settings.every_steps == 0
        elapsed = perf_counter() - self._last_time
        by_time = settings.every_seconds is not None and elapsed >= settings.every_seconds
        return by_step or by_time or (improved and settings.keep_best > 0)

    def save(self, step: int, score: Score | None = None) -> float | None:
        """Save while the run goes on; a disk that refuses is told of, and the run goes on without.

        Of asynchronous saves one is under way at most; the one before is waited for.

        :returns: the seconds that it took, those of an asynchronous one being the longest known so far; None where
            nothing was saved or none is known.
        :raises RunError: a weight or a state of the optimizer is not finite.
        """
        start = perf_counter()
        try:
            self._settle()
            if self._copies is not None:
                self._begin(step, score, self._copies)
                return self._longest
            self._write(step, score)
        except OSError as error:
            self._refused(step, error)
            return None
        finally:
            self._last_time = perf_counter()
            self._unreported += self._last_time - start
            self.seconds += self._last_time - start
        return perf_counter() - start

    def save_last(self, step: int, score: Score | None = None) -> None:
        """Save what nothing follows.

        :raises RunError: it cannot be written; says which checkpoint is there. Or as `save`.
        """
        start = perf_counter()
        try:
            self._settle()
            self._write(step, score)
        except OSError as error:
            good = self._good()["last_good"]
            raise RunError(
                f"the checkpoint of step {step} cannot be written to {self._run / FOLDER}: {_reason(error)}; "
                f"the last good one is {good or 'none'}",
                fix="make room, and go on with --resume",
            ) from error
        finally:
            self.seconds += perf_counter() - start

    def settle(self) -> None:
        """Wait for a save that is under way, on all ranks.

        :raises RunError: it failed, and not at the disk.
        """
        start = perf_counter()
        try:
            self._settle()
        finally:
            self.seconds += perf_counter() - start

    def leave(self) -> None:
        """Wait for a save that is under way, however the run ends, unless that hangs on other ranks."""
        if self._pending is not None and self._background.size == 1:
            self._pending.wait()

    def reported(self) -> float:
        """Seconds of saving since the last call."""
        seconds, self._unreported = self._unreported, 0.0
        return seconds

    def _begin(self, step: int, score: Score | None, copies: HostCopies) -> None:
        """Copy what there is to save, and leave the writing to a thread."""
        start = perf_counter()
        with Agreement(self._together) as agreement:
            if agreement.lead(lambda: self._is_saved(step)):
                return
            content = copies(content_of(*self._take(score), agreement))
        self._pending = Pending(step, lambda: self._put(content, self._background, start))

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        error = pending.wait()
        if isinstance(error, OSError):
            self._refused(pending.step, error)
        elif error is not None:
            raise error
        else:
            self._longest = max(self._longest or 0.0, pending.seconds)

    def _write(self, step: int, score: Score | None) -> None:
        start = perf_counter()
        with Agreement(self._together) as agreement:
            if agreement.lead(lambda: self._is_saved(step)):
                return
            content = content_of(*self._take(score), agreement)
        self._put(content, self._together, start)

    def _put(self, content: Content, together: Together, start: float) -> None:
        target = self._run / FOLDER / checkpoint_name(content.step)
        write_checkpoint(target, content, together)
        self._log.info("checkpoint saved", step=content.step, seconds=perf_counter() - start, folder=str(target))
        if together.leads:
            self._prune()

    def _is_saved(self, step: int) -> bool:
        found = checkpoints(self._run)
        return bool(found) and step_of(found[0]) == step

    def _refused(self, step: int, error: OSError) -> None:
        self._log.warning(f"checkpoint not saved, the run goes on: {_reason(error)}", step=step, **self._good())

    def _prune(self) -> None:
        try:
            removed = prune(self._run, last=self._settings.keep_last, best=self._settings.keep_best)
        except OSError as error:
            self._log.warning(f"a superfluous checkpoint cannot be removed: {_reason(error)}")
        else:
            if removed:
                self._log.info("checkpoints removed", steps=[step_of(checkpoint) for checkpoint in removed])

    def _good(self) -> Mapping[str, Any]:
        found = checkpoints(self._run)
        return {"last_good": found[0].name if found else None}


def _reason(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}"
