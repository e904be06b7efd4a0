"""The best step so far, by a metric of the algorithm's evaluations, and when to stop waiting for a better one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xtuner_core.config.root import BestConfig, CoreConfig
from xtuner_core.engine.checkpoint.manifest import Score
from xtuner_core.errors import RunError
from xtuner_core.plan import Plan

_STATE = ("step", "value", "idle", "seen", "latest")


@dataclass(kw_only=True)
class Best:
    """Follows one metric.

    :param relied: whether the run was told something that needs the metric, beyond the default.
    """

    config: BestConfig
    relied: bool = False
    step: int | None = None
    """Of the best evaluation so far; None before the first."""
    value: float | None = None
    idle: int = 0
    """Evaluations since then."""
    seen: int | None = None
    """Step of the last evaluation."""
    latest: float | None = None
    """What it gave."""

    @classmethod
    def of(cls, core: CoreConfig, plan: Plan) -> Best:
        """That of a run; it relies on its metric where a setting that needs it is not the default's."""
        set_here = any(
            plan.origins.get(key, "default") != "default"
            for key in ("best.metric", "best.mode", "best.patience", "best.min_delta", "checkpoint.keep_best")
        )
        needed = core.best.patience is not None or core.export.best or core.checkpoint.keep_best > 0
        return cls(config=core.best, relied=needed and (set_here or core.export.best))

    def take(self, step: int, metrics: Mapping[str, float]) -> Score | None:
        """Take note of what a step was told to have.

        :returns: its score, or None where it was not evaluated.
        :raises RunError: an evaluation gives other metrics than the one that the run relies on; names them.
        """
        value = metrics.get(self.config.metric)
        if value is None:
            self._refuse_others(metrics)
            return None
        if step == self.seen:
            return self.score_of(step)
        self.seen, self.latest = step, value
        if self.value is None or self._gain(value) > self.config.min_delta:
            self.step, self.value, self.idle = step, value, 0
        else:
            self.idle += 1
        return self.score_of(step)

    def score_of(self, step: int) -> Score | None:
        """The score of a step, if it is the one that was evaluated last."""
        if self.latest is None or step != self.seen:
            return None
        return Score(metric=self.config.metric, mode=self.config.mode, value=self.latest)

    @property
    def exhausted(self) -> str | None:
        """Why the run has to end early; None while it has not."""
        patience = self.config.patience
        if patience is None or self.idle < patience:
            return None
        return f"no better {self.config.metric} than {self.value:.6g} of step {self.step} in {self.idle} evaluations"

    @property
    def missing(self) -> bool:
        """Whether the run relies on a metric that has not come."""
        return self.relied and self.value is None

    def summary(self) -> dict[str, Any] | None:
        """Metric, value and step of the best; None where nothing was evaluated."""
        if self.value is None:
            return None
        return {"metric": self.config.metric, "value": self.value, "step": self.step}

    def refuse_unseen(self, seen: Mapping[str, Any]) -> None:
        """At the end of a run: refuse a metric that it relied on and that never came.

        :param seen: what the algorithm found at the end.
        :raises RunError: names the metrics that did come.
        """
        if self.missing:
            raise self._unknown(sorted(name for name, _ in flat(seen)))

    def state_dict(self) -> dict[str, Any]:
        """Step, value and count."""
        return {name: getattr(self, name) for name in _STATE} | {"metric": self.config.metric}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, unless another metric is followed now."""
        if state.get("metric") == self.config.metric:
            for name in _STATE:
                setattr(self, name, state[name])

    def _gain(self, value: float) -> float:
        assert self.value is not None
        return self.value - value if self.config.mode == "min" else value - self.value

    def _refuse_others(self, metrics: Mapping[str, float]) -> None:
        """An evaluation's metrics share their first word, `held_out`, as the wanted one does."""
        roots = {"held_out", self.config.metric.partition(".")[0]}
        others = sorted(name for name in metrics if "." in name and name.partition(".")[0] in roots)
        if self.relied and others:
            raise self._unknown(others)

    def _unknown(self, there: list[str]) -> RunError:
        found = f"the evaluation gives {', '.join(there)}" if there else "the run evaluated nothing"
        return RunError(
            f"best.metric={self.config.metric} does not appear: {found}",
            fix="set best.metric to one of them, and let the algorithm evaluate (algorithm.evaluate_every)",
        )


def flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested mappings, by names joined with dots: `held_out.loss`."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
