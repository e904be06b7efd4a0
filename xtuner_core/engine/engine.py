"""The engine: a wired model, its loss and its optimizer, and what an algorithm may ask of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from xtuner_core.config.root import EngineConfig
from xtuner_core.contracts.algorithm import StepResult
from xtuner_core.contracts.batch import PackedBatch
from xtuner_core.contracts.device import Device
from xtuner_core.contracts.loss import Loss, TokenScores
from xtuner_core.contracts.optimizer import Optimizer, Schedule
from xtuner_core.contracts.parallelism import Parallelism
from xtuner_core.contracts.precision import PrecisionPolicy
from xtuner_core.contracts.sampling import Sample, Sampling
from xtuner_core.contracts.weights import Part
from xtuner_core.engine.masters import MasterWeights
from xtuner_core.engine.non_finite import tolerate
from xtuner_core.engine.objective import Objective, StepTotals, score
from xtuner_core.engine.operators import OperatorRow
from xtuner_core.engine.ranks.crew import Crew, lone_crew
from xtuner_core.engine.ranks.heartbeat import NoHeartbeat, Pulse
from xtuner_core.engine.ranks.layout import RankLayout
from xtuner_core.engine.ranks.reduction import Reduction
from xtuner_core.engine.schedule import PlainSchedule
from xtuner_core.engine.schedule import Schedule as PassSchedule
from xtuner_core.engine.step import Stepper
from xtuner_core.hf.targets import named_tensors


@dataclass(kw_only=True)
class Engine:
    """Implements `contracts.algorithm.Engine`, and takes the run's steps.

    On several ranks there is one on each. The leading rank's is what the algorithm asks; what it does with all of them
    it orders the others to do too, whose engines have a handler for each order.
    """

    model: nn.Module
    device: Device
    policy: PrecisionPolicy
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    masters: MasterWeights
    settings: EngineConfig
    operators: tuple[OperatorRow, ...] = ()
    """What was bound, for display."""
    datasets: tuple[str, ...] = ()
    """Names of the run's datasets, in the order of the batches' field `DATASET`."""
    crew: Crew = field(default_factory=lone_crew)
    layout: RankLayout | None = None
    """What this rank holds of each parameter; None means everything."""
    strategies: tuple[Parallelism, ...] = ()
    passes: PassSchedule = field(default_factory=PlainSchedule)
    asked_to_stop: Callable[[], bool] = bool
    pulse: Pulse = field(default_factory=NoHeartbeat)
    """Is told what this rank is about to do, for whoever watches it."""
    steps_taken: int = 0
    """Those that were skipped included."""
    skipped_in_a_row: int = 0
    """Steps skipped since the last that was not; goes into a checkpoint beside `steps_taken`."""

    def __post_init__(self) -> None:
        if self.layout is None:
            self.layout = RankLayout(self.crew.ranks.views, self.crew.ranks.rank)
        names = [parameter.name for parameter in self.masters.optimized]
        self._stepper = Stepper(
            model=self.model,
            objective=Objective(self.model, self.loss),
            optimizer=self.optimizer,
            masters=self.masters,
            reduction=Reduction(self.crew.ranks, self.layout, names),
            strategies=self.strategies,
            schedule=self.passes,
            arrive=self._arrive,
            asked_to_stop=self.asked_to_stop,
            at=self._at,
            device=self.device.torch_device,
            clip_norm=self.settings.clip_norm,
        )

    @property
    def stops(self) -> int:
        """Ranks that were asked to stop when the last step was taken."""
        return self._stepper.stops

    def step(self, batches: Sequence[PackedBatch], *, steps: int) -> StepResult:
        """One optimizer step over a global batch, ordered by the leading rank.

        :param batches: its micro-batches, on the host; they are dealt to the ranks.
        :param steps: of the whole run, for the learning-rate schedule.
        :raises RunError: loss or gradient was not finite, and the settings bear no such step, or not so many.
        """
        step = self.steps_taken + 1
        learning_rate = self.optimizer.learning_rate * self.schedule(step, steps)
        totals = StepTotals.of(self.loss, batches, self.datasets)
        self.crew.order("step", step=step, learning_rate=learning_rate, totals=asdict(totals))
        return self.take(self.crew.deal(batches), totals, step, learning_rate)

    def take(self, batches: Sequence[PackedBatch], totals: StepTotals, step: int, learning_rate: float) -> StepResult:
        """Take a step with this rank's micro-batches; every rank takes it."""
        result = self._stepper(batches, totals, step=step, learning_rate=learning_rate)
        self.steps_taken = step
        self.skipped_in_a_row = tolerate(result, self.skipped_in_a_row, self.settings)
        return result

    def score(self, batch: PackedBatch) -> TokenScores:
        """Log-probabilities of a batch's labels, float [T] on the device, without gradient."""
        return next(self.score_all([batch]))

    def score_all(self, batches: Iterable[PackedBatch]) -> Iterator[TokenScores]:
        """Score one batch after the other; on several ranks so many at a time as are given different documents."""
        views = self.crew.ranks.views
        together, waiting = views.size(*views.working("documents")), iter(batches)
        while found := list(islice(waiting, together)):
            self.crew.order("score")
            scores = self._scores(self.crew.deal(found))
            log_probs = self.crew.gather([each.log_probs_T for each in scores], found)
            entropies = (
                self.crew.gather([each.entropy_T for each in scores if each.entropy_T is not None], found)
                if self.loss.entropy
                else [None] * len(found)
            )
            for log_probs_T, entropy_T in zip(log_probs, entropies, strict=True):
                yield TokenScores(log_probs_T=log_probs_T, entropy_T=entropy_T)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Sample]:
        """Continue prompts with the model as it stands; all ranks do, and draw what the leading one draws."""
        self.crew.order("generate", prompts=[list(prompt) for prompt in prompts], sampling=asdict(sampling))
        return self._generate(prompts, sampling)

    def parts(self) -> dict[str, Part]:
        """What this rank holds of every parameter and persistent buffer as it is optimized: masters where there are."""
        assert self.layout is not None
        masters = {id(parameter): master for parameter, master in self.masters.copies}
        tensors = named_tensors(self.model)
        over = {name: masters[id(tensor)] for name, tensor in tensors.items() if id(tensor) in masters}
        return self.layout.parts(self.model, over)

    def handlers(self) -> Mapping[str, Callable[..., object]]:
        """What this rank does at each order of the leading one."""
        return {"step": self._step_ordered, "score": self._score_ordered, "generate": self._generate_ordered}

    def _step_ordered(self, step: int, learning_rate: float, totals: Mapping[str, Any]) -> None:
        self.take(self.crew.dealt(), StepTotals(**totals), step, learning_rate)

    def _score_ordered(self) -> None:
        scores = self._scores(self.crew.dealt())
        self.crew.answer([each.log_probs_T for each in scores])
        if self.loss.entropy:
            self.crew.answer([each.entropy_T for each in scores if each.entropy_T is not None])

    def _generate_ordered(self, prompts: Sequence[Sequence[int]], sampling: Mapping[str, Any]) -> None:
        self._generate(prompts, Sampling(**sampling))

    @torch.no_grad()
    def _scores(self, batches: Sequence[PackedBatch]) -> list[TokenScores]:
        self._at("scoring")
        return [self._score(self._arrive(batch)) for batch in batches]

    def _score(self, batch: PackedBatch) -> TokenScores:
        prediction = self.model(batch).predictions[0]
        found = score(self.model, prediction, batch.named(prediction.labels), entropy=self.loss.entropy)
        self._scored()
        return found

    def _generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Sample]:
        from xtuner_core.engine.generate import generate

        self._at("generation")
        device = self.device.torch_device
        found = generate(self.model, prompts, sampling, device=device, agree=self._agree)
        self._scored()
        return found

    def _at(self, operation: str) -> None:
        self.pulse.at(self.steps_taken, operation)

    def _scored(self) -> None:
        for strategy in self.strategies:
            strategy.scored(self.model)

    def _agree(self, tensor: Tensor) -> Tensor:
        return self.crew.agree(tensor)

    def _arrive(self, batch: PackedBatch) -> PackedBatch:
        batch = batch.to(self.device.torch_device)
        if batch.part is None:
            return batch
        from xtuner_core.engine.ranks.scatter import join

        return join(batch, self.crew.ranks)
