"""What an algorithm is: one source of global batches, a loss, what follows a step, a state to save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from xtuner_core.config.root import DataConfig
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.dataset import Corpus
from xtuner_core.contracts.loss import TokenScores
from xtuner_core.contracts.sampling import Sample, Sampling
from xtuner_core.contracts.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step of the engine did."""

    step: int
    """Counts from 1."""
    loss: float
    """Main loss, without the auxiliary ones."""
    grad_norm: float
    learning_rate: float
    tokens: int
    """Real tokens of the global batch."""
    seconds: float
    """Of the wall, from the batch on the host to the updated weights."""
    auxiliary: Mapping[str, float] = field(default_factory=dict)
    """Auxiliary losses as added to the main one, coefficients included."""
    loss_by_dataset: Mapping[str, float] = field(default_factory=dict)
    """Main loss of each dataset that the step trained on, where the run has several and the batches tell them apart."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """The model's statistics summed over the step, as nested lists of numbers."""
    skipped: bool = False
    """Whether loss or gradient was not finite; then nothing was updated and every weight keeps its bits."""
    reason: str = ""
    """Why it was skipped: which loss, or the role and the name of the parameter whose gradient was the first."""
    times: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the host in `data`, `forward`, `backward` and `optimizer`; a device may work on meanwhile."""


class Engine(Protocol):
    """What an algorithm may ask of the engine."""

    def score(self, batch: PackedBatch) -> TokenScores:
        """Log-probabilities of a batch's labels without gradient."""

    def score_all(self, batches: Iterable[PackedBatch]) -> Iterator[TokenScores]:
        """Score one batch after the other, in their order; spread over the ranks where there are several."""

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Sample]:
        """Continue prompts with the model as it stands."""


Stopping = Callable[[], str | None]
"""Why the run is asked to stop, or None while it is not."""
Report = Callable[[str, Mapping[str, Any]], None]
"""Writes a warning to the run's log: an event, and its values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the core hands to an algorithm's factory."""

    engine: Engine
    tokenizer: Tokenizer
    corpora: Mapping[str, Corpus]
    """The run's datasets by the name of their entry."""
    seed: int
    folder: Path
    """The run's folder; an algorithm writes below `folder / "artifacts"`."""
    data: DataConfig = field(default_factory=DataConfig)
    """The run's settings for reading, tokenising and packing."""
    cache: Path
    """Folder for what can be made again (tokenised data), shared by all runs; may not exist yet."""
    report: Report
    stopping: Stopping
    """What takes long before the first step asks this now and then, and raises `RunStopped` on an answer."""


class Algorithm(Protocol):
    """Pre-training, SFT and RL look alike to the engine."""

    steps: int
    """Optimizer steps that the run will take."""

    def batches(self) -> Iterator[Sequence[PackedBatch]]:
        """Global batches, each a list of micro-batches, on the CPU; ends when the run is done."""

    def after_step(self, result: StepResult) -> Mapping[str, float]:
        """What follows a step (an evaluation, a refreshed reference); returns metrics of its own."""

    def finish(self) -> Mapping[str, Any]:
        """After the last step: the final evaluation, as plain data for the run's summary."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors from which `load_state_dict` goes on exactly."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""


class AlgorithmFactory(Protocol):
    """What an algorithm provider's `factory` names."""

    def __call__(self, config: Any, services: Services) -> Algorithm:
        """Build the algorithm of `config`."""
