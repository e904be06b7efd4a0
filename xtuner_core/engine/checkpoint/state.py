"""All that changes in a run while it goes: taken for a checkpoint, and put back from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from xtuner_core.contracts.algorithm import Algorithm
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.contracts.weights import Part
from xtuner_core.engine.checkpoint.manifest import Score
from xtuner_core.engine.checkpoint.random_states import random_states, set_random_states
from xtuner_core.engine.checkpoint.saved import Saved
from xtuner_core.engine.checkpoint.snapshot import Snapshot, Weights
from xtuner_core.engine.engine import Engine
from xtuner_core.errors import DataError, XTunerCoreError
from xtuner_core.hf.read import read_weights
from xtuner_core.plan import Plan


class Stateful(Protocol):
    """Something of a run that goes on from where it was."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """A run's changing parts."""

    engine: Engine
    algorithm: Algorithm | None = None
    """None on a rank that does not lead, and so has none; what it tells of the run's counters is not written."""
    tokenizer: Tokenizer | None = None
    plan: Plan
    shard_bytes: int
    parts: Mapping[str, Stateful] = field(default_factory=dict)
    """The run's own counters, by name."""
    log: Any = None
    """Of the run."""

    def take(self, score: Score | None) -> tuple[Weights, Snapshot]:
        """The weights as they are optimized, and all else, right after a step; nothing is copied."""
        engine = self.engine
        weights = Weights(
            model=engine.model,
            parts=engine.parts(),
            tokenizer=self.tokenizer,
            shard_bytes=self.shard_bytes,
        )
        counts = {"steps_taken": engine.steps_taken, "skipped_in_a_row": engine.skipped_in_a_row}
        snapshot = Snapshot(
            step=engine.steps_taken,
            optimizer=engine.optimizer.state_dict(),
            moments=moment_parts(engine),
            algorithm={} if self.algorithm is None else self.algorithm.state_dict(),
            random=random_states(engine.device),
            progress={"engine": counts, **{name: part.state_dict() for name, part in self.parts.items()}},
            plan=self.plan.to_json(),
            plan_digest=self.plan.digest,
            score=score,
        )
        return weights, snapshot

    def restore(self, saved: Saved) -> None:
        """Put back everything but the weights, which the engine was built from, and the random states.

        :raises DataError: a component does not take its state.
        """
        counts = saved.progress["engine"]
        self.engine.steps_taken, self.engine.skipped_in_a_row = counts["steps_taken"], counts["skipped_in_a_row"]
        _load("optimizer", self.engine.optimizer.load_state_dict, saved.optimizer)
        if self.algorithm is not None:
            _load("algorithm", self.algorithm.load_state_dict, saved.algorithm)
        for name, part in self.parts.items():
            _load(name, part.load_state_dict, saved.progress[name])

    def restore_random(self, saved: Saved) -> None:
        """Put this rank's random states back; last, so that nothing draws between.

        Where the number of ranks was another, those of rank `rank % number` then.
        """
        ranks, then = self.engine.crew.ranks, len(saved.random)
        if then != ranks.world_size and self.log is not None:
            self.log.warning("random states are those of another number of ranks", then=then, now=ranks.world_size)
        set_random_states(saved.random[ranks.rank % then], self.engine.device)


def moment_parts(engine: Engine) -> dict[str, Part]:
    """Boxes of the optimizer's tensors that follow a parameter, by the names that `codec.encode` gives them."""
    assert engine.layout is not None
    mine = {parameter.name: parameter.tensor.shape for parameter in engine.masters.optimized}
    states: Mapping[str, Mapping[str, Any]] = engine.optimizer.state_dict().get("parameters", {})
    return {
        f"optimizer.parameters.{name}.{key}": engine.layout.part(name, value)
        for name, values in states.items()
        for key, value in values.items()
        if isinstance(value, Tensor) and name in mine and value.shape == mine[name]
    }


def load_weights(engine: Engine, model_folder: Path) -> None:
    """Give an engine the weights of a checkpoint in place, master copies included.

    :param model_folder: the checkpoint's `model`.
    """
    model: Any = engine.model
    assert engine.layout is not None
    read_weights(model, model.weight_map(), model_folder, parts=engine.parts(), whole=engine.layout.whole)
    engine.masters.publish()


def _load(what: str, load: Callable[[Mapping[str, Any]], None], state: Mapping[str, Any]) -> None:
    try:
        load(state)
    except XTunerCoreError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        message = f"the saved state of the {what} is not one that it takes: {type(error).__name__}: {error}"
        raise DataError(message, fix="go on with the plugins and the configuration that saved it") from error
