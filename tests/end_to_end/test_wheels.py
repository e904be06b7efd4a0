"""The built wheels in a fresh virtual environment, outside the repository and without anything of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

REPOSITORY = Path(__file__).parents[2]
PROJECTS = {
    "xtuner_core": REPOSITORY,
    "xtuner_core_kernels": REPOSITORY / "kernels",
    "xtuner_core_llama": REPOSITORY / "plugins" / "llama",
    "xtuner_core_qwen3_moe": REPOSITORY / "plugins" / "qwen3_moe",
}


def call(*command: str | Path, cwd: Path) -> str:
    """Run a program with nothing of the repository on its path."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """Built from the working tree."""
    folder = tmp_path_factory.mktemp("wheels")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
    ]
    call(*build, *PROJECTS.values(), cwd=folder)
    return {wheel.name.partition("-")[0]: wheel for wheel in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def scripts(wheels, tmp_path_factory) -> Path:
    """`bin` of a virtual environment that holds the wheels and what they ask for."""
    home = tmp_path_factory.mktemp("outside")
    call(sys.executable, "-m", "venv", home / "venv", cwd=home)
    constraints = REPOSITORY / "constraints.txt"
    call(home / "venv/bin/python", "-m", "pip", "install", "-q", "-c", constraints, *wheels.values(), cwd=home)
    return home / "venv" / "bin"


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_project_gives_one_wheel_with_its_package_alone(wheels):
    assert set(wheels) == set(PROJECTS)
    for package, wheel in wheels.items():
        roots = {name.partition("/")[0] for name in names(wheel)}
        assert roots == {package, f"{package}-{wheel.name.split('-')[1]}.dist-info"}
        assert not [name for name in names(wheel) if "/test_" in name or name.endswith((".pyc", "conftest.py"))]


def test_the_core_carries_text_tokenizer_recipe_and_both_licences(wheels):
    held = names(wheels["xtuner_core"])
    text = {"text.xz", "held_out.txt", "tokenizer.json", "tokenizer_config.json", "LICENSE-TEXT"}
    assert {f"xtuner_core/builtin/kjv/{name}" for name in text} <= held
    assert "xtuner_core/builtin/pretrain/recipes/pretrain.yaml" in held
    licences = {name.partition("/licenses/")[2] for name in held if "/licenses/" in name}
    assert licences == {"LICENSE", "xtuner_core/builtin/kjv/LICENSE-TEXT"}


def test_the_installed_wheels_train_outside_the_repository(scripts, tmp_path):
    assert call(scripts / "python", "-c", "import xtuner_core; print(xtuner_core.__file__)", cwd=tmp_path).startswith(
        str(scripts.parent)
    )
    values = ["steps=3", "compare_xz=false", "evaluate_overlap=0", "sample_tokens=8"]
    said = call(scripts / "xtuner-core", "run", *(f"algorithm.{value}" for value in values), cwd=tmp_path)
    (run,) = (tmp_path / "runs").glob("[!.]*")
    assert json.loads((run / "summary.json").read_text())["steps"] == 3
    assert said.splitlines()[-1] == f"weights: {run / 'export'}"
    generated = call(scripts / "xtuner-core", "generate", run, "--prompt", "And God", "--max-tokens", "4", cwd=tmp_path)
    assert generated.startswith("And God")


def test_the_installed_wheels_bring_no_transformers(scripts, tmp_path):
    installed = json.loads(call(scripts / "python", "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    assert "transformers" not in {item["name"] for item in installed}
    assert {name.replace("_", "-") for name in PROJECTS} <= {item["name"] for item in installed}
