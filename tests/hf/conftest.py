"""An invented model whose weight map uses all that a map can say, and a folder of its weights.

V vocabulary, D width, E experts, F expert width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from xtuner_core.contracts.weights import Init, Span, WeightEntry, WeightMap
from xtuner_core.hf.initialise import initialise
from xtuner_core.hf.materialise import materialise
from xtuner_core.hf.write import export

V, D, E, F = 11, 6, 3, 4
NORMAL = Init("normal", 0.02)


@dataclass(frozen=True)
class ToyConfig:
    eos_token_id: int | None = 5

    def to_hf(self) -> dict[str, Any]:
        return {"model_type": "toy", "hidden_size": D, "eos_token_id": self.eos_token_id}


class Toy(nn.Module):
    """Gate and up in one stack, a transposed stack, interleaved rows, a tied head, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.config = ToyConfig()
        self.embed = nn.Embedding(V, D)
        self.gate_up = nn.Parameter(torch.empty(E, 2 * F, D))
        self.down = nn.Parameter(torch.empty(E, F, D))
        self.pairs = nn.Parameter(torch.empty(2 * F, D))
        self.norm = nn.Parameter(torch.empty(D))
        self.register_buffer("bias", torch.empty(E))
        self.head = nn.Linear(D, V, bias=False)
        self.head.weight = self.embed.weight

    def weight_map(self) -> WeightMap:
        entries = [
            WeightEntry(hf_name="model.embed.weight", parameter="embed.weight", init=NORMAL),
            WeightEntry(hf_name="model.norm.weight", parameter="norm", init=Init("constant", 1.0)),
            WeightEntry(hf_name="model.router.bias", parameter="bias", init=Init("constant", 0.0)),
            WeightEntry(hf_name="model.even.weight", parameter="pairs", index=(Span(0, 2 * F, 2),), init=NORMAL),
            WeightEntry(hf_name="model.odd.weight", parameter="pairs", index=(Span(1, 2 * F, 2),), init=NORMAL),
        ]
        for e in range(E):
            name = f"model.experts.{e}"
            entries += [
                WeightEntry(hf_name=f"{name}.gate", parameter="gate_up", index=(e, Span(0, F)), init=NORMAL),
                WeightEntry(hf_name=f"{name}.up", parameter="gate_up", index=(e, Span(F, 2 * F)), init=NORMAL),
                WeightEntry(hf_name=f"{name}.down", parameter="down", index=(e,), transpose=True, init=NORMAL),
            ]
        return WeightMap(tuple(entries), optional=frozenset({"lm_head.weight"}))


class FlatToy(nn.Module):
    """The same checkpoint with one parameter for each of its tensors, all in the checkpoint's orientation."""

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            toy = Toy()
        tensors = dict(toy.state_dict(keep_vars=True))
        self.config = toy.config
        self.entries = []
        for entry in toy.weight_map().entries:
            name = entry.hf_name.replace(".", "_")
            shape = entry.region(tensors[entry.parameter]).shape
            setattr(self, name, nn.Parameter(torch.empty(shape)))
            self.entries.append(WeightEntry(hf_name=entry.hf_name, parameter=name, init=entry.init))

    def weight_map(self) -> WeightMap:
        return WeightMap(tuple(self.entries))


def build(kind: type[nn.Module] = Toy, *, dtype: torch.dtype | None = None, seed: int | None = 0) -> Any:
    """A model on the CPU, initialised unless `seed` is None."""
    with torch.device("meta"):
        model = kind()
    materialise(model, "cpu", dtype)
    if seed is not None:
        initialise(model, model.weight_map(), seed)
    return model


@pytest.fixture
def make_toy():
    return lambda **options: build(Toy, **options)


@pytest.fixture
def make_flat():
    return lambda **options: build(FlatToy, **options)


@pytest.fixture
def meta_toy() -> Toy:
    with torch.device("meta"):
        return Toy()


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """A folder with one file."""
    return export(build(), tmp_path / "single")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A folder with an index and several files."""
    return export(build(), tmp_path / "sharded", shard_bytes=400)
