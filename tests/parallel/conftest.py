"""Trainings on several ranks, compared with the same on one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from xtuner_core.testing.layouts import Case, train_case, trained
from xtuner_core.testing.ranks import run_ranks
from xtuner_core.testing.steps import distance


@pytest.fixture(scope="session")
def on_ranks(tmp_path_factory: pytest.TempPathFactory):
    """Train cases on so many ranks, in one launch; gives what each found by its name."""

    def train(count: int, cases: list[Case], timeout: float = 600.0) -> dict[str, dict[str, Tensor]]:
        folder = tmp_path_factory.mktemp("ranks")
        payload = {"folder": str(folder), "cases": [asdict(case) for case in cases]}
        run_ranks(count, "xtuner_core.testing.layouts:train_cases", payload, timeout=timeout)
        refused = {case.name: folder / f"{case.name}.refused" for case in cases}
        return {
            name: {"refused": file.read_text()} if file.exists() else trained(folder, name)
            for name, file in refused.items()
        }

    return train


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory):
    """Train a case in this process, without its strategies; once for each that differ in nothing else."""
    folder, made = tmp_path_factory.mktemp("alone"), {}

    def train(case: Case) -> dict[str, Tensor]:
        data = asdict(case)
        data["overrides"] = {key: value for key, value in case.overrides.items() if key != "parallelism"}
        key = json.dumps({**data, "name": ""}, sort_keys=True)
        if key not in made:
            made[key] = str(len(made))
            with torch.random.fork_rng():
                found = train_case(Case(**data))
            save_file(found.tensors, Path(folder) / f"{made[key]}.safetensors", {"losses": json.dumps(found.losses)})
        return trained(folder, made[key])

    return train


@pytest.fixture(scope="session")
def far():
    """The distance of every loss, gradient and weight that two trainings found, worst first."""

    def distances(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[tuple[float, str]]:
        assert "refused" not in found, found["refused"]
        assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
        return sorted(((distance(found[name], expected[name]), name) for name in found), reverse=True)

    return distances
