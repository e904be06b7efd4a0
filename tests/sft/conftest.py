"""The command in this process, on a model of a few thousand parameters, with real files: texts first, then chats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xtuner_core.cli.main import main
from xtuner_core.testing.tiny_chats import tiny_chats
from xtuner_core.testing.tiny_texts import TOKENIZER, tiny_texts

MODEL = (
    "model=qwen3_moe:tiny",
    *("model.vocab_size=257", "model.hidden_size=32", "model.num_layers=2", "model.num_experts=2"),
    *("model.moe_intermediate_size=32", "model.num_heads=2", "model.num_kv_heads=2", "model.head_dim=16"),
)
BUDGET = ("algorithm.tokens_per_step=512", "algorithm.micro_batch_tokens=512", "algorithm.document_tokens=256")


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def command() -> Iterator[Callable[..., int]]:
    """`xtuner-core …`; what it sets for its process is put back at the end."""
    patch = pytest.MonkeyPatch()
    for name in ("TORCH_DEVICE_BACKEND_AUTOLOAD", "GOMP_SPINCOUNT"):
        patch.setenv(name, "put back afterwards")
    yield lambda *arguments: main(list(arguments))
    patch.undo()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of `texts.jsonl`, `chats.jsonl` and `held_out.jsonl`."""
    folder = tmp_path_factory.mktemp("data")
    corpus = tiny_texts()
    texts = [record.text for shard in corpus.shards("train") for record in corpus.read("train", shard)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for name, split in (("chats", "train"), ("held_out", "held_out")):
        lines = [json.dumps({"messages": messages}) for messages in tiny_chats(split)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def run(command: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """`xtuner-core run …` to its end."""

    def to_the_end(output: Path, *values: str) -> Run:
        before = set(output.glob("[!.]*"))
        assert command("run", f"output={output}", *values) == 0
        (folder,) = set(output.glob("[!.]*")) - before
        return Run(folder)

    return to_the_end


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of a session lie, and their cache."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def pretrained(run: Callable[..., Run], data: Path, output: Path) -> Run:
    """The first of two commands: a model that has seen the words."""
    values = ("algorithm.steps=8", "optimizer.learning_rate=0.01", *BUDGET, f"tokenizer={TOKENIZER}")
    return run(output, "algorithm=pretrain", f"dataset={data}/texts.jsonl", *MODEL, *values)


@pytest.fixture(scope="session")
def tuning(pretrained: Run, data: Path) -> tuple[str, ...]:
    """What the second command is given."""
    datasets = (f"dataset={data}/chats.jsonl", f"dataset.chats.held_out_path={data}/held_out.jsonl")
    more = ("optimizer.learning_rate=0.01", "algorithm.sample_tokens=12", "algorithm.evaluate_every=20", *BUDGET)
    return ("algorithm=sft", f"init={pretrained.folder}", *datasets, *more)


@pytest.fixture(scope="session")
def tuned(run: Callable[..., Run], output: Path, tuning: tuple[str, ...]) -> Run:
    """The second of two commands: a model that answers."""
    return run(output, *tuning, "algorithm.steps=80")
