"""What a run keeps on the disk, done by all ranks together when the leading one orders it: checkpoints, an export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.engine.checkpoint.manifest import Score
from xtuner_core.engine.checkpoint.saver import Saver
from xtuner_core.engine.checkpoint.state import load_weights
from xtuner_core.engine.engine import Engine
from xtuner_core.hf.write import export


class Saving:
    """The saver of one rank, and its share of an export. The leading rank calls it; what it does it orders first.

    :param folder: the run's.
    :param again: whether a run was there before, whose export is replaced.
    """

    def __init__(
        self,
        engine: Engine,
        saver: Saver,
        folder: Path,
        *,
        tokenizer: Tokenizer | None = None,
        shard_bytes: int,
        again: bool,
    ) -> None:
        self._engine = engine
        self._crew = engine.crew
        self._saver = saver
        self._folder = folder
        self._tokenizer = tokenizer
        self._shard_bytes = shard_bytes
        self._again = again

    @property
    def seconds(self) -> float:
        """Spent on saves, those that failed included."""
        return self._saver.seconds

    def due(self, step: int, *, improved: bool) -> bool:
        """Whether the run's settings ask for a checkpoint after this step."""
        return self._saver.due(step, improved=improved)

    def reported(self) -> float:
        """Seconds of saving since the last call."""
        return self._saver.reported()

    def save(self, step: int, score: Score | None = None) -> float | None:
        """Save while the run goes on; see `Saver.save`."""
        self._order("save", step, score)
        return self._saver.save(step, score)

    def save_last(self, step: int, score: Score | None = None) -> None:
        """Save what nothing follows; see `Saver.save_last`."""
        self._order("save_last", step, score)
        self._saver.save_last(step, score)

    def settle(self) -> None:
        """Wait for a save that is under way; see `Saver.settle`."""
        self._crew.order("settle")
        self._saver.settle()

    def leave(self) -> None:
        """See `Saver.leave`; of this rank alone."""
        self._saver.leave()

    def load(self, model_folder: Path) -> None:
        """Give the engine the weights of a checkpoint.

        :param model_folder: the checkpoint's `model`.
        """
        self._crew.order("load", folder=str(model_folder))
        load_weights(self._engine, model_folder)

    def export(self) -> Path:
        """Write the Hugging Face folder of the run."""
        self._crew.order("export")
        engine, layout = self._engine, self._engine.layout
        assert layout is not None
        engine.pulse.at(engine.steps_taken, "export")
        parts = layout.parts(engine.model)
        # What a strategy casts lies in the optimizer's dtype, and is exported in that of the computation, as elsewhere.
        cast = {name: engine.policy.compute for name in parts if layout.is_cast(name)}
        return export(
            engine.model,
            self._folder / "export",
            parts=parts,
            dtype=cast or None,
            tokenizer=self._tokenizer,
            shard_bytes=self._shard_bytes,
            over=self._again,
            together=self._crew.world.control,
        )

    def handlers(self) -> Mapping[str, Callable[..., object]]:
        """What this rank does at each order of the leading one."""
        return {
            "save": lambda step, score: self.save(step, _score(score)),
            "save_last": lambda step, score: self.save_last(step, _score(score)),
            "settle": self.settle,
            "load": lambda folder: self.load(Path(folder)),
            "export": self.export,
        }

    def _order(self, name: str, step: int, score: Score | None) -> None:
        self._crew.order(name, step=step, score=None if score is None else asdict(score))
        self._engine.pulse.at(step, "saving")


def _score(data: Mapping[str, object] | None) -> Score | None:
    return None if data is None else Score(**data)  # type: ignore[arg-type]
