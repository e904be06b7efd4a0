"""Services for a feed, with what was reported kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from xtuner_core.config.root import DataConfig
from xtuner_core.contracts.algorithm import Services, StepResult
from xtuner_core.contracts.dataset import Corpus


@dataclass
class Numbers:
    """Stands for a tokenizer of which only the size matters."""

    size: int = 60_000
    end_of_text: int = 0
    folder: Path = Path()


@dataclass
class Log:
    """Events that were reported."""

    lines: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def __call__(self, event: str, values: Mapping[str, Any]) -> None:
        self.lines.append((event, values))

    def of(self, event: str) -> list[Mapping[str, Any]]:
        return [values for name, values in self.lines if name == event]


@pytest.fixture(scope="session")
def corpora() -> Iterator[ModuleType]:
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)  # processes that are started get it too
    import feed_corpora

    yield feed_corpora
    sys.path.remove(folder)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def services(tmp_path: Path, log: Log) -> Callable[..., Services]:
    def make(*, vocabulary: int = 60_000, seed: int = 0, cache: Path | None = None, **settings: Any) -> Services:
        named: dict[str, Corpus] = settings.pop("datasets")
        return Services(
            engine=None,
            tokenizer=Numbers(vocabulary),
            corpora=named,
            seed=seed,
            folder=tmp_path,
            data=DataConfig(**settings),
            cache=cache or tmp_path / "cache",
            report=log,
            stopping=lambda: None,
        )

    return make


@pytest.fixture
def result() -> Callable[[int], StepResult]:
    def make(step: int) -> StepResult:
        return StepResult(step=step, loss=1.0, grad_norm=1.0, learning_rate=1.0, tokens=1, seconds=1.0)

    return make
